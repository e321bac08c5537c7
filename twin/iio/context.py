"""An IIO context as data: devices, channels and attributes, and the XML that tells a client of them."""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol
from xml.sax.saxutils import quoteattr

__all__ = ["Attribute", "Channel", "Context", "Device", "Stream", "refused"]

DTD = (
    "<!DOCTYPE context ["
    "<!ELEMENT context (device | context-attribute)*>"
    "<!ELEMENT context-attribute EMPTY>"
    "<!ELEMENT device (channel | attribute)*>"
    "<!ELEMENT channel (scan-element?, attribute*)>"
    "<!ELEMENT attribute EMPTY>"
    "<!ELEMENT scan-element EMPTY>"
    "<!ATTLIST context name CDATA #REQUIRED description CDATA #IMPLIED>"
    "<!ATTLIST context-attribute name CDATA #REQUIRED value CDATA #REQUIRED>"
    "<!ATTLIST device id CDATA #REQUIRED name CDATA #IMPLIED label CDATA #IMPLIED>"
    "<!ATTLIST channel id CDATA #REQUIRED type (input|output) #REQUIRED name CDATA #IMPLIED>"
    "<!ATTLIST scan-element index CDATA #REQUIRED format CDATA #REQUIRED scale CDATA #IMPLIED>"
    "<!ATTLIST attribute name CDATA #REQUIRED filename CDATA #IMPLIED>"
    "]>"
)


class Stream(Protocol):
    """One client's view of a device's samples."""

    def read(self, samples: int, columns: list[int]) -> bytes:
        """The next samples of the chosen scan elements, interleaved, as the scan elements' format says; blocks until they are there."""


@dataclass(frozen=True)
class Attribute:
    """A named value. A direction that is None is refused as a file without that permission is (EACCES)."""

    read: Callable[[], str] | None = None
    write: Callable[[str], None] | None = None


@dataclass(frozen=True)
class Channel:
    """An input or output of a device."""

    id: str
    output: bool = False
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    scan: int | None = None  # place in a sample of the buffer; None: not part of it


@dataclass(frozen=True)
class Device:
    """Attributes, channels, and a stream where it has a buffer."""

    id: str
    name: str
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    channels: tuple[Channel, ...] = ()
    label: str = ""
    stream: Callable[[], Stream] | None = None  # a new one for each client that opens the buffer

    def channel(self, name: str, output: bool) -> Channel | None:
        """The channel of this id and direction."""
        return next((c for c in self.channels if c.id == name and c.output == output), None)


@dataclass(frozen=True)
class Context:
    """All that one port offers."""

    description: str
    attributes: Mapping[str, str]
    devices: tuple[Device, ...]

    def device(self, name: str) -> Device | None:
        """The device of this id, name or label; of several, the first."""
        return next(
            (d for key in ("id", "name", "label") for d in self.devices if name and getattr(d, key) == name), None
        )

    def xml(self) -> str:
        """What ``PRINT`` answers."""
        out = [
            f'<?xml version="1.0" encoding="utf-8"?>{DTD}<context name="network" description={quoteattr(self.description)} >'
        ]
        out += [f"<context-attribute name={quoteattr(n)} value={quoteattr(v)} />" for n, v in self.attributes.items()]
        for device in self.devices:
            label = f" label={quoteattr(device.label)}" if device.label else ""
            out.append(f"<device id={quoteattr(device.id)} name={quoteattr(device.name)}{label} >")
            for channel in device.channels:
                way = "output" if channel.output else "input"
                out.append(f'<channel id="{channel.id}" type="{way}" >')
                if channel.scan is not None:
                    out.append(f'<scan-element index="{channel.scan}" format="le:S16/16&gt;&gt;0" />')
                prefix = f"{'out' if channel.output else 'in'}_{channel.id}_"
                out += [f'<attribute name="{name}" filename="{prefix}{name}" />' for name in channel.attributes]
                out.append("</channel>")
            out += [f"<attribute name={quoteattr(name)} />" for name in device.attributes]
            out.append("</device>")
        return "".join([*out, "</context>"])


def refused(number: int) -> OSError:
    """The error a device driver would answer with; ``number`` as in ``errno``."""
    return OSError(number, errno.errorcode[number])
