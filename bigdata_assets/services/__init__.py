"""Local engines from Maven jars: fetched, started, watched and stopped without Docker or an administrator."""

import os
import secrets
from pathlib import Path


def template(name: str, **values: object) -> str:
    """A file of `templates`, its {names in braces} filled in."""
    text = (Path(__file__).parent / "templates" / name).read_text()
    for key, value in values.items():
        text = text.replace(f"{{{key}}}", str(value))
    return text


def secret(path: Path) -> str:
    """What a file has that only its owner can read; made if it is not there."""
    if path.exists():
        return path.read_text().strip()
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(secrets.token_urlsafe(32))
    try:
        # Linked, not moved: of two first starts at once one makes it and both use it.
        os.link(aside, path)
    except FileExistsError:
        pass
    finally:
        aside.unlink()
    return path.read_text()
