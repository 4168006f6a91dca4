"""Directives for what the code says of itself, so that no page repeats it and goes stale.

`{flags} jobs.train.TrainConfig`: the flags of a job. `{models}`: those of each model, and its
defaults of shared ones. `{settings} api.settings.Settings`: environment variables. `{http-api}`:
the service's requests and their schemas, from its OpenAPI document.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from nrms.architectures import architectures
from nrms.config import Option, described, flag

MIB = 2**20


def cell(text: str) -> str:
    """Text on one line, as a table's cell takes it."""
    return " ".join(text.split()).replace("|", "\\|")


def table(header: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown; empty without rows."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n\n" if rows else ""


def with_unit(default: str) -> str:
    """Bytes are named by their multiple: 67108864 is 64 MiB."""
    if default.isdigit() and int(default) >= MIB and int(default) % MIB == 0:
        return f"{int(default) // MIB:,} MiB"
    return f"{int(default):,}" if default.isdigit() else default


def options(config_class: type, spelled: Callable[[str], str]) -> str:
    """A table for each group of a configuration.

    Args:
        config_class: a dataclass as `nrms.config` describes it.
        spelled: gives an option's name as users write it.
    """

    def row(option: Option) -> list[str]:
        default = "required" if option.default is None else with_unit(option.default)
        return [f"`{spelled(option.name)}`", default, cell(f"{option.meaning} ({option.allowed})")]

    return "".join(
        f"**{title}**\n\n" + table(["name", "default", "meaning"], [row(o) for o in group])
        for title, group in described(config_class)
    )


def http_api(document: dict[str, Any]) -> str:
    """The requests of an OpenAPI document, then the schemas that they name."""
    text, schemas = "", dict(document["components"]["schemas"])
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            text += f"### {method.upper()} `{path}`\n\n{operation['description']}\n\n"
            parameters = [
                [f"`{p['name']}`", kind(p["schema"]), cell(p.get("description", ""))]
                for p in operation.get("parameters", [])
            ]
            text += table(["parameter", "", "meaning"], parameters)
            for media, content in operation.get("requestBody", {}).get("content", {}).items():
                if media == "multipart/form-data":  # has a schema of its own, without a name
                    name = content["schema"]["$ref"].rpartition("/")[2]
                    text += f"Body: `{media}`.\n\n{fields(schemas.pop(name))}"
                else:
                    text += f"Body: `{media}`, {kind(content['schema'])}.\n\n"
            answers = []
            for status, answer in operation["responses"].items():
                bodies = [
                    f"`{media}`" + (f", {kind(body['schema'])}" if body.get("schema") else "")
                    for media, body in answer.get("content", {}).items()
                ]
                answers.append([status, cell(answer["description"]), cell(" or ".join(bodies))])
            text += table(["status", "meaning", "body"], answers)
    for name, schema in schemas.items():
        text += f"### {name}\n\n{schema.get('description', '')}\n\n{fields(schema)}"
    return text


def fields(schema: dict[str, Any]) -> str:
    """A table of an object's fields."""
    rows = [
        [
            f"`{name}`" + (" (required)" if name in schema.get("required", ()) else ""),
            kind(value),
            cell(value.get("description", "")),
        ]
        for name, value in schema.get("properties", {}).items()
    ]
    return table(["field", "type", "meaning"], rows)


def link(name: str) -> str:
    """To the section of a schema."""
    return f"[{name}](#{name.lower()})"


def kind(schema: dict[str, Any]) -> str:
    """The type of a value, with its range and default."""
    if "$ref" in schema:
        return link(schema["$ref"].rpartition("/")[2])
    if "anyOf" in schema:
        return " or ".join(kind(part) for part in schema["anyOf"])
    if "enum" in schema:
        text = " or ".join(f"`{value}`" for value in schema["enum"])
    elif schema.get("type") == "array":
        text = f"list of {kind(schema['items'])}"
    elif isinstance(schema.get("additionalProperties"), dict):
        text = f"object of {kind(schema['additionalProperties'])}"
    else:
        text = schema.get("contentMediaType") or schema.get("format") or schema.get("type", "any")
    limits = {"minimum": "≥ ", "maximum": "≤ ", "minItems": "at least ", "maxItems": "at most "}
    notes = [f"{word}{int(schema[key]):,}" for key, word in limits.items() if key in schema]
    if schema.get("default") not in (None, [], ""):
        notes.append(f"default {str(schema['default']).lower()}")
    return f"{text} ({', '.join(notes)})" if notes else text


class Flags(SphinxDirective):
    """`{flags} MODULE.CLASS`"""

    required_arguments = 1
    spelled = staticmethod(flag)

    def run(self) -> list[nodes.Node]:
        """The tables of the class."""
        module, _, name = self.arguments[0].rpartition(".")
        config_class = getattr(importlib.import_module(module), name)
        return self.parse_text_to_nodes(options(config_class, self.spelled))


class Settings(Flags):
    """`{settings} MODULE.CLASS`"""

    spelled = staticmethod(str.upper)


class Models(SphinxDirective):
    """`{models}`"""

    def run(self) -> list[nodes.Node]:
        """A section for each model that is registered."""
        text = ""
        for name, model in architectures().items():
            text += f"### {name}\n\n{options(model.config_class, flag)}"
            defaults = [[f"`{flag(key)}`", str(value)] for key, value in model.defaults.items()]
            text += table(["shared flag", "its default here"], defaults)
        return self.parse_text_to_nodes(text, allow_section_headings=True)


class HttpApi(SphinxDirective):
    """`{http-api}`"""

    def run(self) -> list[nodes.Node]:
        """A section for each request and each schema."""
        from api.app import create_app
        from api.settings import Settings

        document = create_app(Settings(model_uri="models")).openapi()
        return self.parse_text_to_nodes(http_api(document), allow_section_headings=True)


def setup(app: Sphinx) -> dict[str, bool]:
    """What Sphinx calls."""
    app.add_directive("flags", Flags)
    app.add_directive("models", Models)
    app.add_directive("settings", Settings)
    app.add_directive("http-api", HttpApi)
    return {"parallel_read_safe": True}
