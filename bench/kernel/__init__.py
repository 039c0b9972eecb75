"""The kernels: benchmark cases, their measurement and tables."""
