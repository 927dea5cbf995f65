"""Which addresses may be asked: those of the public internet. It knows numbers and names, and opens no connection.

A server that fetches what people name must not be made to ask its own machine, its network or a cloud's metadata service.
"""

import ipaddress
from ipaddress import IPv4Address, IPv6Address

_RESERVED = tuple(map(ipaddress.ip_network, ("192.0.0.0/24", "192.88.99.0/24", "168.63.129.16/32", "fec0::/10")))
"""What Python counts as public and is not: protocol assignments, old relays, Azure's own address, old site networks."""
_IPV4_EMBEDDING_NETWORKS = (ipaddress.ip_network("64:ff9b::/96"), ipaddress.ip_network("::/96"))
"""Networks whose addresses end with an IPv4 address that a gateway connects to."""
_LOCAL_NAMES = (
    ".localhost", ".localdomain", ".local", ".internal", ".home.arpa", ".lan", ".home", ".corp", ".intranet", ".private", ".test",
    ".invalid",
)  # fmt: skip
"""Endings of names that only a machine or its network knows; the public DNS has none of them."""


def is_public(address: str) -> bool:
    """Tell whether the IP address may be asked, looking at every address that is wrapped in it too."""
    return all(_is_public(effective) for effective in _effective_addresses(ipaddress.ip_address(address)))


def _is_public(address: IPv4Address | IPv6Address) -> bool:
    special = address.is_multicast or address.is_reserved or any(address in network for network in _RESERVED)
    return address.is_global and not special


def _effective_addresses(address: IPv4Address | IPv6Address) -> list[IPv4Address | IPv6Address]:
    """Return the address, or the IPv4 ones that it stands for."""
    if isinstance(address, IPv4Address):
        return [address]
    if address.ipv4_mapped:
        return [address.ipv4_mapped]
    if any(address in network for network in _IPV4_EMBEDDING_NETWORKS):
        return [IPv4Address(int(address) & 0xFFFFFFFF)]
    if address.sixtofour:
        return [address.sixtofour]
    return [address, *(address.teredo or ())]


def is_address(host: str) -> bool:
    """Tell whether a host is given as an IP address."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def is_local_name(host: str) -> bool:
    """Tell whether a host's name can only mean this machine or its network."""
    name = host.rstrip(".").lower()
    return name == "localhost" or name.endswith(_LOCAL_NAMES) or "." not in name
