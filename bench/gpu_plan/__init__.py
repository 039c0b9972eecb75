"""`python -m bench.gpu_plan`: what torch.compile would give a GPU to do, seen on a machine without one.

In the order of the work: ``pretended_gpu`` shows torch an H200 that is not there, ``generated_step`` takes the code
that inductor writes for a step, and ``replay`` runs that code on tensors without memory under a ``recorder``, which
lists the launches. ``iteration`` does the same with a whole training iteration. ``launches`` adds a model of the time,
``generated_kernels`` compiles the Triton kernels, ``plan`` makes and compares the JSON.
"""
