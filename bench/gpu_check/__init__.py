"""`python -m bench.gpu_check`: GPU tests and benchmarks in parts, on a machine with a GPU.

``__main__`` parses and reports, ``parts`` lists the parts, ``process`` runs one, ``records`` is the pytest plugin that
writes down what happens, ``result`` is the JSON.
"""
