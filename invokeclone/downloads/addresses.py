"""Classification of addresses and host names as public or private, against server-side request forgery.

A server that downloads from URLs given by users must not be made to connect to its own machine, its network or a cloud
metadata service.
"""

import ipaddress
from ipaddress import IPv4Address, IPv6Address

_RESERVED = tuple(map(ipaddress.ip_network, ("192.0.0.0/24", "192.88.99.0/24", "168.63.129.16/32", "fec0::/10")))
"""Networks that Python counts as public but are not: IETF protocol assignments, the 6to4 relay anycast prefix, Azure's
virtual platform address, IPv6 site-local addresses."""
_IPV4_EMBEDDING_NETWORKS = (ipaddress.ip_network("64:ff9b::/96"), ipaddress.ip_network("::/96"))
"""Networks whose addresses embed an IPv4 address that a gateway connects to: NAT64, IPv4-compatible IPv6."""
_LOCAL_NAMES = (
    ".localhost", ".localdomain", ".local", ".internal", ".home.arpa", ".lan", ".home", ".corp", ".intranet", ".private", ".test",
    ".invalid",
)  # fmt: skip
"""Suffixes of local host names; none of them is in the public DNS."""


def is_public(address: str) -> bool:
    """Return whether an IP address and every address embedded in it is public."""
    return all(_is_public(effective) for effective in _effective_addresses(ipaddress.ip_address(address)))


def _is_public(address: IPv4Address | IPv6Address) -> bool:
    special = address.is_multicast or address.is_reserved or any(address in network for network in _RESERVED)
    return address.is_global and not special


def _effective_addresses(address: IPv4Address | IPv6Address) -> list[IPv4Address | IPv6Address]:
    """Return the addresses that a connection to `address` may reach: itself or the embedded IPv4 addresses."""
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
    """Return whether a host is an IP address."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def is_local_name(host: str) -> bool:
    """Return whether a host name is that of this machine or of its local network."""
    name = host.rstrip(".").lower()
    return name == "localhost" or name.endswith(_LOCAL_NAMES) or "." not in name
