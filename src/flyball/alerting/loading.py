"""Reading alertmanager.yml with the template files that it names."""

import glob
from dataclasses import replace
from pathlib import Path, PurePosixPath

from flyball.alerting.config import Config, parse_config
from flyball.alerting.matchers import Mode
from flyball.alerting.templates import Templates
from flyball.errors import ConfigError


def load(path: Path, mode: Mode = Mode.FALLBACK) -> tuple[Config, Templates]:
    """The configuration of a file; relative paths in it begin beside it.

    A template file that cannot be used is a problem of the configuration, and of the receivers that need it.

    Raises:
        ConfigError: the file is missing or wrong; a line for every error.
    """
    try:
        text = path.read_bytes()
    except OSError as exc:
        raise ConfigError(f"{path}: {exc.strerror}; name the file that is meant") from exc
    return prepare(text, str(path), path.absolute().parent, mode)


def prepare(text: str | bytes, what: str, directory: Path, mode: Mode = Mode.FALLBACK) -> tuple[Config, Templates]:
    """As ``load``, of a text; relative paths in it begin at ``directory``.

    Raises:
        ConfigError: the text is wrong; a line for every error.
    """
    config = parse_config(text, what, directory=PurePosixPath(directory), mode=mode)
    templates, problems = Templates(), list(config.problems)
    for pattern in config.templates:
        for name in sorted(glob.glob(pattern)):
            try:
                templates.add(Path(name).read_text(), name)
            except (OSError, UnicodeDecodeError) as exc:
                problems.append(f"{name}: cannot be read: {exc}")
            except ConfigError as exc:
                problems.append(str(exc))
    return replace(config, problems=tuple(problems)), templates
