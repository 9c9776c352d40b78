"""Local engines from Maven jars: fetched, started, watched and stopped without Docker or an administrator."""

from pathlib import Path


def template(name: str, **values: object) -> str:
    """A file of `templates`, its {names in braces} filled in."""
    text = (Path(__file__).parent / "templates" / name).read_text()
    for key, value in values.items():
        text = text.replace(f"{{{key}}}", str(value))
    return text
