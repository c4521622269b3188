# SPDX-License-Identifier: Apache-2.0
"""The Fast DDS profile that lets multi-megabyte clouds through, and domains nobody else is in.

Default Fast DDS gives a participant a 512 KB shared-memory segment; larger best-effort samples
vanish without a word. The shipped profile raises it to 64 MB. Both sides must load it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

from cross4d_jepa_ros.shared_files import shared_file

PROFILE = 'config/fastdds_large_data.xml'
LARGE_SEGMENT_BYTES = 8 * 1024 * 1024
# Those whose ports lie above Linux's ephemeral ones, which anybody may be given.
OWN_DOMAINS = range(215, 233)


def profile_variable() -> str:
    """Name the environment variable from which this ROS line reads its Fast DDS profile.

    Kilted (rclpy 9, Fast DDS 3) renamed it and warns about the old name; Jazzy and Humble
    do not know the new one.
    """
    line = int(version('rclpy').split('.')[0])
    return 'FASTDDS_DEFAULT_PROFILES_FILE' if line >= 9 else 'FASTRTPS_DEFAULT_PROFILES_FILE'


def use_large_message_profile() -> None:
    """Point Fast DDS at the shipped profile unless the user chose one. Call before rclpy starts."""
    os.environ.setdefault(profile_variable(), str(shared_file(PROFILE)))


def use_own_domain() -> None:
    """Keep this process and its children on this machine, in a domain that nobody else is in.

    A foreign node of the same name would be taken for the one that was started. A domain that the
    user chose stays. Call before rclpy starts.
    """
    os.environ.setdefault('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
    start = os.getpid() % len(OWN_DOMAINS)
    domains = (*OWN_DOMAINS[start:], *OWN_DOMAINS[:start])
    taken = _taken_ports()
    free = next((domain for domain in domains if taken.isdisjoint(_ports(domain))), domains[0])
    os.environ.setdefault('ROS_DOMAIN_ID', str(free))


def _ports(domain: int) -> range:
    """UDP ports of all participants of a domain, by the DDS standard."""
    return range(7400 + 250 * domain, 7400 + 250 * (domain + 1))


def _taken_ports() -> set[int]:
    """UDP ports that somebody on this machine has; none where that cannot be read."""
    try:
        lines = Path('/proc/net/udp').read_text().splitlines()[1:]
    except OSError:
        return set()
    return {int(line.split()[1].rpartition(':')[2], 16) for line in lines}


def missing_profile(rmw: str, environment: Mapping[str, str] = os.environ) -> str | None:
    """Say why this process may lose large messages.

    Args:
        rmw: Identifier of the middleware in use, e.g. `rmw_fastrtps_cpp`.
        environment: The process environment.

    Returns:
        One sentence, or None where the process is equipped (or the middleware is not Fast DDS).

    """
    if 'fastrtps' not in rmw:
        return None
    variable = profile_variable()
    hint = f'export {variable}=<share>/{PROFILE} in every process that sends or reads'
    chosen = environment.get(variable, '')
    if not chosen:
        return f'this process runs without a Fast DDS profile for large messages; {hint}'
    try:
        text = Path(chosen).read_text(errors='replace')
    except OSError as error:
        return f'the Fast DDS profile {chosen} cannot be read ({error.strerror}); {hint}'
    sizes = [int(size) for size in re.findall(r'<segment_size>\s*(\d+)\s*<', text)]
    if max(sizes, default=0) < LARGE_SEGMENT_BYTES:
        return f'the Fast DDS profile {chosen} has no shared-memory segment of 8 MB or more; {hint}'
    return None
