"""Which addresses are public: a list of our own, for Python's `ipaddress` answers otherwise from one patch release to the next."""

import ipaddress
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

# IANA's registry of special-purpose IPv4 addresses without "globally reachable" ones, and multicast.
SPECIAL_IPV4 = tuple(
    IPv4Network(each)
    for each in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",  # 6to4 relays, deprecated by RFC 7526.
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
    )
)
# All that IANA has opened for global unicast; the rest is special, multicast, or given to nobody yet.
GLOBAL_IPV6 = IPv6Network("2000::/3")
# IANA's registry of special-purpose IPv6 addresses within it.
SPECIAL_IPV6 = tuple(
    IPv6Network(each)
    for each in (
        "2001::/23",  # Protocols: Teredo, benchmarks, ORCHID.
        "2001:db8::/32",
        "2002::/16",  # 6to4, which leads to the IPv4 address within it.
        "3fff::/20",
    )
)
# RFC 6052: how a network without IPv4 reaches an IPv4 address, the last 32 bits.
NAT64 = IPv6Network("64:ff9b::/96")
IPV4_MASK = 0xFFFF_FFFF


class Forbidden(OSError):
    """An address lies in a private network, ours perhaps."""


def check_address(host: str) -> None:
    """Refuse an IP address that is not a public one."""
    if not _public(ipaddress.ip_address(host)):
        raise Forbidden(f"{host} is not a public address")


def check_literal(host: str) -> None:
    """Refuse a host that is written as an IP address that is not a public one; a name is looked at when it is resolved."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return
    check_address(host)


def _public(address: IPv4Address | IPv6Address) -> bool:
    if isinstance(address, IPv6Address):
        inside = IPv4Address(int(address) & IPV4_MASK) if address in NAT64 else address.ipv4_mapped
        if inside is None:
            return address in GLOBAL_IPV6 and not any(address in network for network in SPECIAL_IPV6)
        address = inside
    return not any(address in network for network in SPECIAL_IPV4)
