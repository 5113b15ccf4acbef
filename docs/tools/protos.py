"""MkDocs hook: one page for each protocol, made from the comments of its .proto file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    ServiceDescriptorProto,
)
from google.rpc import status_pb2
from grpc_tools import protoc
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2] / "proto"
# The path to a comment consists of the numbers of fields in FileDescriptorProto and its parts.
SYNTAX, MESSAGE, ENUM, SERVICE = 12, 4, 5, 6
FIELD, NESTED, NESTED_ENUM, VALUE, METHOD = 2, 3, 4, 2, 2
Where = tuple[int, ...]
Comments = dict[Where, str]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages, so that no comment is written twice."""
    for proto in descriptors():
        path = f"reference/protos/{proto.package}.md"
        files.append(File.generated(config, path, content=page(proto)))
    return files


def descriptors() -> list[FileDescriptorProto]:
    """The protocols of this repository, with their comments."""
    with TemporaryDirectory() as folder:
        out = Path(folder, "protos.binpb")
        folders = (
            ROOT,
            Path(status_pb2.__file__).parents[2],  # google/rpc/status.proto lies beside its Python
            Path(protoc.__file__).parent / "_proto",  # google/protobuf/any.proto
        )
        include = [f"-I{each}" for each in folders]
        sources = [str(path) for path in sorted(ROOT.glob("attnpriv/*/*.proto"))]
        if protoc.main(["protoc", *include, "--include_source_info", f"-o{out}", *sources]):
            raise PluginError("protoc failed on the .proto files")
        return list(FileDescriptorSet.FromString(out.read_bytes()).file)


def page(proto: FileDescriptorProto) -> str:
    """The services, messages and enums of a protocol as Markdown."""
    located = proto.source_code_info.location
    comments = {tuple(each.path): each.leading_comments for each in located}
    parts = [f"# {proto.package}", f"From `proto/{proto.name}`.", fenced(comments[(SYNTAX,)])]
    for number, service in enumerate(proto.service):
        parts += service_parts(service, (SERVICE, number), comments)
    for number, message in enumerate(proto.message_type):
        parts += message_parts(message, (MESSAGE, number), comments)
    for number, enum in enumerate(proto.enum_type):
        parts += enum_parts(enum, (ENUM, number), comments)
    return "\n\n".join(part for part in parts if part) + "\n"


def service_parts(service: ServiceDescriptorProto, at: Where, comments: Comments) -> Iterator[str]:
    """A service with a row for each of its methods."""
    yield f"## Service {service.name}"
    yield prose(comments, at)
    rows = []
    for number, method in enumerate(service.method):
        asks = ("stream of " if method.client_streaming else "") + link(method.input_type)
        gets = ("stream of " if method.server_streaming else "") + link(method.output_type)
        rows.append((f"`{method.name}`", asks, gets, cell(comments, (*at, METHOD, number))))
    yield table(("method", "request", "response", ""), rows)


def message_parts(
    message: DescriptorProto, at: Where, comments: Comments, prefix: str = ""
) -> Iterator[str]:
    """A message with a row for each of its fields, then what is declared inside it."""
    if message.options.map_entry:
        return
    name = f"{prefix}{message.name}"
    yield f"## {name}"
    yield prose(comments, at)
    rows = [
        (f"`{field.name}`", str(field.number), kind(field), cell(comments, (*at, FIELD, number)))
        for number, field in enumerate(message.field)
    ]
    yield table(("field", "number", "type", ""), rows) if rows else "No fields."
    for number, nested in enumerate(message.nested_type):
        yield from message_parts(nested, (*at, NESTED, number), comments, f"{name}.")
    for number, enum in enumerate(message.enum_type):
        yield from enum_parts(enum, (*at, NESTED_ENUM, number), comments, f"{name}.")


def enum_parts(
    enum: EnumDescriptorProto, at: Where, comments: Comments, prefix: str = ""
) -> Iterator[str]:
    """An enum with a row for each of its values."""
    yield f"## {prefix}{enum.name}"
    yield prose(comments, at)
    rows = [
        (f"`{value.name}`", str(value.number), cell(comments, (*at, VALUE, number)))
        for number, value in enumerate(enum.value)
    ]
    yield table(("value", "number", ""), rows)


def kind(field: FieldDescriptorProto) -> str:
    """The type of a field, with `repeated` or `optional` where it is so."""
    name = FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()
    shown = link(field.type_name) if field.type_name else name
    if field.label == FieldDescriptorProto.LABEL_REPEATED:
        return f"repeated {shown}"
    return f"optional {shown}" if field.proto3_optional else shown


def link(type_name: str) -> str:
    """A full type name, without the package where it is one of ours."""
    for package in (".attnpriv.v1.", ".inference."):
        if type_name.startswith(package):
            return f"`{type_name.removeprefix(package)}`"
    return f"`{type_name.lstrip('.')}`"


def prose(comments: Comments, at: Where) -> str:
    """The comment at a place as a paragraph."""
    return " ".join(comments.get(at, "").split())


def cell(comments: Comments, at: Where) -> str:
    """The comment at a place as a table's cell."""
    return prose(comments, at).replace("|", "\\|")


def fenced(comment: str) -> str:
    """A comment whose line breaks count."""
    lines = (line.removeprefix(" ") for line in comment.rstrip().splitlines())
    return "\n".join(("```text", *lines, "```"))


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Rows as a table."""
    columns = list(head)
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
