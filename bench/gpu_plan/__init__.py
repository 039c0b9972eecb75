"""`python -m bench.gpu_plan`: what torch.compile would give a GPU to do for a step, seen on a machine without one.

In the order of the work: ``pretended_gpu`` shows torch an H200 that is not there, ``generated_step`` takes the code
that inductor writes for a step, ``replay`` runs that code on tensors without memory and lists its launches,
``launches`` adds a model of the time, ``generated_kernels`` compiles the Triton kernels, ``plan`` makes and compares
the JSON.
"""
