"""The commands of the command line, one file each. They parse; the work is elsewhere."""

try:
    import typer  # noqa: F401
except ModuleNotFoundError as error:
    raise SystemExit(f'the fastdat command needs {error.name}: pip install "fastdat[train]"') from error
