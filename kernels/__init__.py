"""Operations of the DAT step, one a file. They know nothing of the package that uses them."""

if __name__ != "fastdat.kernels":
    raise ImportError(
        f"this folder is the package 'fastdat.kernels', imported here as {__name__!r}: a top-level name 'kernels' "
        "belongs to another project. Use `import fastdat.kernels`; in a source tree run from its root, where the "
        "link fastdat/kernels points here."
    )
