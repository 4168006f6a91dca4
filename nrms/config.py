"""Builds configurations from command lines, TOML files and environment variables.

A configuration is a frozen dataclass whose fields are made by `option` and `required`; flags, keys
of the file and `--help` follow from it. Precedence: defaults < `--config` file < flags. The class
may depend on the value of one field (`Variants`).
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import inspect
import json
import math
import sys
import tomllib
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, field
from datetime import date as calendar_date
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, NamedTuple, NoReturn, TypeVar

from jsonargparse import ArgumentError, ArgumentParser
from jsonargparse.typing import ClosedUnitInterval, restricted_number_type, restricted_string_type

from nrms.errors import ConfigError, shown

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Config = TypeVar("Config", bound="DataclassInstance")

if TYPE_CHECKING:  # a type checker takes them for the types of their values
    PositiveInt = int
    PositiveFloat = float
    LearningRate = float
    Share = float
    Count = int
    Seed = int
    Text = str
    DateText = str
# --help and errors show the docstrings, which say what is allowed. This is why some of these types
# replace types of jsonargparse.
else:
    PositiveInt = restricted_number_type(
        "AtLeastOne", int, (">=", 1), docstring="a whole number >= 1"
    )
    PositiveFloat = restricted_number_type(
        "FinitePositive", float, [(">", 0), ("<", math.inf)], docstring="a finite number > 0"
    )
    LearningRate = restricted_number_type(
        "LearningRate", float, [(">", 0), ("<=", 1)], docstring="a number > 0 and <= 1"
    )
    Share = restricted_number_type(
        "Share", float, [(">=", 0), ("<", 1)], docstring="a number >= 0 and < 1"
    )
    Count = restricted_number_type("Count", int, (">", -1), docstring="a whole number >= 0")
    Seed = restricted_number_type(
        "Seed", int, [(">=", 0), ("<", 2**32)], docstring="a whole number >= 0 and < 2^32"
    )
    Text = restricted_string_type("Text", r"\s*\S", docstring="text that is not empty")
    DateText = restricted_string_type(
        "Date", r"\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])$", docstring="a date, YYYY-MM-DD"
    )


# What other programs call these flags, if the name is too different to be recognized.
_SYNONYMS = {
    "lr": ("learning_rate", "lr_rate", "alpha"),
    "batch_size": ("bs", "batch", "train_batch_size", "minibatch_size"),
    "epochs": ("epoch", "n_epochs", "num_epochs", "max_epochs", "iterations"),
    "patience": ("early_stopping", "early_stopping_patience"),
    "history_size": (
        "history",
        "history_length",
        "history_len",
        "max_history",
        "max_history_length",
        "his_size",
    ),
    "title_size": ("title_length", "title_len", "max_title_length", "max_title_len", "max_length"),
    "npratio": ("negatives", "num_negatives", "n_negatives", "negative_ratio", "neg_ratio", "k"),
    "word_dim": ("embedding_dim", "embedding_size", "word_emb_dim"),
    "word_vectors": ("embeddings", "word_embeddings", "glove", "fasttext"),
    "heads": ("num_heads", "n_heads", "head_num", "attention_heads"),
    "dropout": ("drop_rate", "dropout_rate"),
    "optimizer": ("optim",),
    "schedule": ("scheduler", "lr_schedule", "lr_scheduler"),
    "warmup": ("warmup_steps", "num_warmup_steps"),
    "weight_decay": ("wd", "l2"),
    "clip_norm": ("clipnorm", "global_clipnorm", "grad_clip", "gradient_clip_val", "max_grad_norm"),
    "label_smoothing": ("smoothing", "label_smoothing_factor"),
    "seed": ("random_seed", "random_state"),
    "precision": ("dtype", "fp16", "bf16", "mixed_precision", "amp"),
    "resume": ("restore", "continue", "resume_from", "resume_from_checkpoint", "checkpoint"),
    "init_from": ("pretrained", "warm_start", "from_pretrained", "load_from", "model_path"),
    "data": ("dataset", "data_dir", "data_path", "input", "input_dir"),
    "output": ("out", "output_dir", "output_path", "save_dir", "model_dir", "target"),
    "run_name": ("name", "experiment", "experiment_name"),
    "wandb_project": ("project",),
    "wandb_mode": ("wandb", "no_wandb"),
    "config": ("cfg", "config_file", "conf"),
}


ENVIRONMENT: Final = "environment"  # where a value comes from, if not from a flag or a file


def option(default: Any, help: str) -> Any:
    """A field with a default. `help` says in one line what the field is, with its unit."""
    return field(default=default, metadata={"help": help})


def required(help: str, bare: bool = False) -> Any:
    """A field that the flags or the file must give; with `bare` also a word of the command line
    without its flag, in the order of such fields.
    """
    return field(metadata={"help": help, "bare": bare})


class Variants:
    """A configuration whose fields depend on the value of one of them, such as `model`.

    Attributes:
        choice: the name of that field, which must have a default.
    """

    choice: ClassVar[str]

    @classmethod
    def variants(cls) -> Mapping[str, Any]:
        """The configuration's class for each value of `choice`."""
        raise NotImplementedError


def put_date(config: Any, *names: str) -> None:
    """Replaces `{date}` in these fields by `config.date`. Raises ConfigError where the date is not
    a day of the calendar, or is needed and not given.
    """
    check_date(config.date)
    for name in names:
        value = getattr(config, name)
        if "{date}" in value and config.date is None:
            raise ConfigError(
                f"{flag(name)} holds {{date}}, so --date must be given. Received: {value}"
            )
        object.__setattr__(config, name, value.replace("{date}", config.date or ""))


def check_date(date: str | None) -> None:
    """Raises ConfigError for a date that is not a day of the calendar; None is allowed."""
    if date is not None:
        try:
            calendar_date.fromisoformat(date)
        except ValueError:
            raise ConfigError(
                f"--date must be a day of the calendar. Received: {date!r}."
            ) from None


def as_dict(config: Any) -> dict[str, Any]:
    """The configuration, flat and JSON-ready, in the order of `--help`."""
    values = {name: getattr(config, name) for name in _names(type(config))}
    return {
        name: str(value) if isinstance(value, Path) else value for name, value in values.items()
    }


def config_lines(config: Any) -> list[str]:
    """The configuration as lines of TOML: saved to a file, `--config` reads them back."""
    return [
        f"# {name} is not set"
        if value is None
        else f"{name} = {json.dumps(value, ensure_ascii=False)}"
        for name, value in as_dict(config).items()
    ]


def changed_lines(config: Any) -> list[str]:
    """The lines of `config_lines` whose value is not the default."""
    defaults = {f.name: f.default for f in dataclasses.fields(config)}
    lines = zip(as_dict(config), config_lines(config), strict=True)
    return [line for name, line in lines if getattr(config, name) != defaults[name]]


class Option(NamedTuple):
    """A field in words: its name, what it means, which values it takes, and its default (None for
    a field that must be given).
    """

    name: str
    meaning: str
    allowed: str
    default: str | None

    @property
    def help(self) -> str:
        """All of it, for argparse."""
        default = "required" if self.default is None else f"default: {self.default}"
        return f"{self.meaning} ({self.allowed}; {default})".replace("%", "%%")


def described(config_class: type) -> list[tuple[str, list[Option]]]:
    """The fields in the groups and the order of `--help`, each group with its title."""
    hints = _types(config_class)
    return [
        (
            title,
            [
                Option(
                    f.name,
                    f.metadata["help"],
                    _allowed(hints[f.name]),
                    None if _is_required(f) else _shown(f.default),
                )
                for f in group
            ],
        )
        for title, group in _groups(config_class)
    ]


def parse(
    config_class: type[Config], argv: Sequence[str] | None, prog: str, description: str
) -> Config:
    """Builds a configuration from a command line. `--help` prints and exits.

    Args:
        config_class: a frozen dataclass; each of its dataclass bases is a group in `--help`, named
            by its docstring.
        argv: the arguments; None for those of this process. A flag may be spelled with hyphens or
            underscores; the word null unsets an optional value that the file sets.
        prog: the command, for `--help` and errors.
        description: what the command does, for `--help`.

    Raises:
        ConfigError: an unknown flag or key, a value of a wrong type or out of range, a required one
            that is missing, a file that is missing or not TOML.
    """
    config_class, values = parse_values(config_class, argv, prog, description)
    lacking = {f.name for f in dataclasses.fields(config_class) if _is_required(f)} - values.keys()
    missing = [flag(name) for name in _names(config_class) if name in lacking]
    if missing:
        raise ConfigError(
            f"{' and '.join(missing)} must be given, as a flag or in "
            f"the --config file. Received: nothing. See {prog} --help."
        )
    return config_class(**values)


def parse_values(
    config_class: type[Config],
    argv: Sequence[str] | None,
    prog: str,
    description: str,
    file_flag: str = "--config",
) -> tuple[type[Config], dict[str, Any]]:
    """What `parse` builds a configuration from: its class, and the values of the flags and the
    file. `file_flag` is how the user named the file, for errors.
    """
    words = [_hyphens(word) for word in (sys.argv[1:] if argv is None else argv)]
    file, content, config_class = _first_look(config_class, words, prog, file_flag)
    flags, unknown = _flag_parser(config_class, prog, description).parse_known_args(words)
    for name in (name for name in _bare(config_class) if name not in flags):
        if unknown and not unknown[0].startswith("-"):
            setattr(flags, name, unknown.pop(0))
    if unknown:
        word = unknown[0].partition("=")[0]
        near = _near(word, [flag(name) for name in (*_names(config_class), "config")])
        elsewhere = _elsewhere(config_class, word.removeprefix("--").replace("-", "_"), word)
        raise ConfigError(elsewhere or f"{word} is not a flag. {near}See {prog} --help.")
    convert = _Converter(config_class)
    given = {name: value for name, value in vars(flags).items() if name != "config"}
    values = {name: convert(name, value, file) for name, value in content.items()}
    values |= {name: convert(name, value, None) for name, value in given.items()}
    return config_class, values


def _first_look(
    config_class: type[Config], words: list[str], prog: str, file_flag: str
) -> tuple[Path | None, dict[str, Any], type[Config]]:
    """The `--config` file, its content, and the class that flags and file choose. The other flags,
    `--help` among them, are parsed later, because they depend on the class.
    """
    varied = config_class if issubclass(config_class, Variants) else None
    parser = _FlagParser(
        prog=prog, add_help=False, argument_default=argparse.SUPPRESS, allow_abbrev=False
    )
    for name in ("config", *([varied.choice] if varied else [])):
        parser.add_argument(flag(name))
    given = vars(parser.parse_known_args(words)[0])
    file = Path(given["config"]) if "config" in given else None
    content = _read(file, file_flag)
    if varied:
        choice = varied.choice
        default = config_class.__dataclass_fields__[choice].default
        value = given.get(choice, content.get(choice, default))
        value = _Converter(config_class)(choice, value, None if choice in given else file)
        config_class = varied.variants()[value]
    return file, content, config_class


def parse_environment(config_class: type[Config], environ: Mapping[str, str]) -> Config:
    """Builds a configuration from environment variables, named like the fields in capitals; an
    empty one counts as not set.

    Args:
        config_class: a frozen dataclass.
        environ: the variables; those that no field is named after are ignored.

    Raises:
        ConfigError: a value of a wrong type or out of range, a required one that is missing.
    """
    convert = _Converter(config_class)
    given = {
        name: environ[name.upper()] for name in _names(config_class) if environ.get(name.upper())
    }
    missing = [
        f.name.upper()
        for f in dataclasses.fields(config_class)
        if _is_required(f) and f.name not in given
    ]
    if missing:
        raise ConfigError(f"The environment must set {' and '.join(missing)}. Received: nothing.")
    return config_class(
        **{name: convert(name, value, ENVIRONMENT) for name, value in given.items()}
    )


def environment_help(config_class: type, prog: str, description: str) -> str:
    """The variables that `parse_environment` reads, each with its meaning and default, in the form
    of `--help`.
    """
    parser = argparse.ArgumentParser(
        prog=prog,
        usage="[VARIABLE=VALUE ...] %(prog)s",
        description=description,
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=30),
        add_help=False,
    )
    for title, group in described(config_class):
        section = parser.add_argument_group(title)
        for entry in group:
            section.add_argument(entry.name.upper(), help=entry.help)
    return parser.format_help().rstrip()


class _Converter:
    """Converts one value, a word of the command line or a value of TOML, to the type of its
    field.
    """

    def __init__(self, config_class: type):
        self._class = config_class
        self._names = _names(config_class)
        self._types = _types(config_class)
        # Values are parsed one at a time, so that it is certain which one an error is about and
        # where it came from.
        self._parser = ArgumentParser(exit_on_error=False, parser_mode="json")
        for name in self._names:
            self._parser.add_argument(f"--{name}", type=self._types[name])

    def __call__(self, name: str, value: Any, file: Path | Literal["environment"] | None) -> Any:
        if name not in self._names:
            why = (
                "keys stand in no section"
                if isinstance(value, dict)
                else f"known are {', '.join(self._names)}"
            )
            raise ConfigError(
                _elsewhere(self._class, name, f"{name} in {file}")
                or f"{name} in {file} is not a key. "
                f"{_near(name, self._names) or f'Note: {why}.'}".rstrip()
            )
        where = (
            flag(name)
            if file is None
            else name.upper()
            if file == ENVIRONMENT
            else f"{name} in {file}"
        )
        if isinstance(value, str) and shown(value) != value:
            raise ConfigError(f"{where} must be UTF-8. Received: {shown(value)}.")
        try:
            converted = self._parser.parse_object({name: value}, defaults=False)[name]
        except ArgumentError:
            pass
        else:
            # On the command line a word may become a number or a truth value. In a file it may not,
            # because TOML has types for these.
            if (
                file in (None, ENVIRONMENT)
                or not isinstance(value, str)
                or isinstance(converted, str | Path)
            ):
                return _plain(converted)
        raise ConfigError(f"{where} must be {_allowed(self._types[name])}. Received: {value!r}.")


def _plain(value: Any) -> Any:
    """The value as an int, float or str where its type is restricted, a subclass of one of them."""
    kind = next((kind for kind in (int, float, str) if isinstance(value, kind)), None)
    return value if kind is None or isinstance(value, bool) else kind(value)


class _FlagParser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}. See {self.prog} --help.")


def _flag_parser(config_class: type, prog: str, description: str) -> _FlagParser:
    """The parser of the command line. It leaves all words as they are, and `_Converter` gives them
    their types.
    """
    parser = _FlagParser(
        prog=prog,
        usage=" ".join(
            ["%(prog)s", *map(str.upper, _bare(config_class)), "[--config FILE] [--FLAG VALUE ...]"]
        ),
        description=description,
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=30),
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--config", metavar="FILE", help="TOML file with any of these values; flags override it"
    )
    hints = _types(config_class)
    for title, group in described(config_class):
        section = parser.add_argument_group(title)
        for entry in group:
            is_switch = hints[entry.name] is bool
            switch: dict[str, Any] = {"nargs": "?", "const": "true"} if is_switch else {}
            section.add_argument(flag(entry.name), metavar="VALUE", help=entry.help, **switch)
    return parser


def _read(file: Path | None, file_flag: str) -> dict[str, Any]:
    if file is None:
        return {}
    try:
        # Editors on Windows put a byte order mark first.
        return tomllib.loads(file.read_text("utf-8-sig"))
    except OSError as error:
        raise ConfigError(
            f"{file_flag} must name a file that can be read. Received: {file}: {error.strerror}."
        ) from None
    except ValueError as error:
        raise ConfigError(
            f"{file_flag} must name a TOML file. Received: {file}: {error}."
        ) from None


def _groups(config_class: type) -> list[tuple[str, list[Field]]]:
    """The fields in groups by the class that declares them first, each with its docstring."""
    groups: dict[type, list[Field]] = {c: [] for c in config_class.__mro__}
    for f in dataclasses.fields(config_class):
        groups[next(c for c in reversed(groups) if f.name in inspect.get_annotations(c))].append(f)
    return [(c.__doc__ or c.__name__, group) for c, group in groups.items() if group]


def _names(config_class: type) -> list[str]:
    return [f.name for _, group in _groups(config_class) for f in group]


def _types(config_class: type) -> dict[str, Any]:
    types = typing.get_type_hints(config_class)
    if issubclass(config_class, Variants):
        types[config_class.choice] = Literal[tuple(config_class.variants())]
    return types


def _elsewhere(config_class: type, name: str, where: str) -> str | None:
    """The error's line about a flag or key that belongs to other variants; None where it belongs
    to no variant.
    """
    if not issubclass(config_class, Variants):
        return None
    variants, choice = config_class.variants(), flag(config_class.choice)
    owners = [value for value, variant in variants.items() if name in _names(variant)]
    own = next(value for value, variant in variants.items() if variant is config_class)
    if not owners:
        return None
    return (
        f"{where} belongs to {choice} {', '.join(owners)}. Received: {choice} {own}. Leave it out, "
        f"or choose a {config_class.choice} that has it."
    )


def _allowed(annotation: Any) -> str:
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return " or ".join(
            _allowed(part) for part in typing.get_args(annotation) if part is not types.NoneType
        )
    if typing.get_origin(annotation) is Literal:
        return "one of " + ", ".join(typing.get_args(annotation))
    plain = {
        bool: "true or false",
        int: "a whole number",
        float: "a number",
        str: "text",
        Path: "a path",
    }
    plain[ClosedUnitInterval] = "a number from 0 to 1"
    return plain.get(annotation) or annotation.__doc__


def _shown(default: Any) -> str:
    return (
        "not set"
        if default is None
        else str(default).lower()
        if isinstance(default, bool)
        else str(default)
    )


def _bare(config_class: type) -> list[str]:
    """The fields whose values may be given without their flags, in order."""
    return [f.name for _, group in _groups(config_class) for f in group if f.metadata.get("bare")]


def _is_required(f: Field) -> bool:
    return f.default is MISSING


def flag(name: str) -> str:
    """The flag of a field, as a user types it."""
    return "--" + name.replace("_", "-")


def _hyphens(word: str) -> str:
    name, equals, value = word.partition("=")
    return name.replace("_", "-") + equals + value if word.startswith("--") else word


def _near(name: str, known: list[str]) -> str:
    bare = name.removeprefix("--").replace("-", "_").lower()
    meant = [ours for ours, others in _SYNONYMS.items() if bare in others]
    # The caller decides the spelling: flags with hyphens, keys with underscores.
    near = [ours for ours in known if ours.removeprefix("--").replace("-", "_") in meant]
    near = near or difflib.get_close_matches(name, known, n=1)
    return f"Did you mean {near[0]}? " if near else ""
