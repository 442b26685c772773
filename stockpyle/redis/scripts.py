"""What Redis does at once, in Lua: each script is about one key, so that it runs on any node of a cluster.

A value begins with a byte that tells what it is. Then comes a random token: by that of a lease or a lock its owner
knows it again, and by that of a record whoever has a copy of it. A key that holds no string (somebody else's list, say)
is as good as one with foreign bytes in it.

https://redis.io/docs/latest/develop/programmability/eval-intro/
"""

from __future__ import annotations

import secrets
from typing import Final

from stockpyle.remote.epochs import EPOCH_BYTES

RECORD: Final = b"\x01"
LEASE: Final = b"\x02"
LOCK: Final = b"\x03"
EPOCH: Final = b"\x04"
CLOSED: Final = b"\x05"

MARK_BYTES: Final = 12
"""By so many random bytes a writer knows its own mark among those that close an epoch."""


def new_epoch() -> bytes:
    """Return the value of an epoch that nobody has had before."""
    return EPOCH + secrets.token_bytes(EPOCH_BYTES)


_HELD = """
local held = redis.pcall('GET', KEYS[1])
if type(held) == 'table' then held = '' end
"""

_PUT = """
if ARGV[2] == '' then
    redis.call('DEL', KEYS[1])
elseif ARGV[3] == '0' then
    redis.call('SET', KEYS[1], ARGV[2])
else
    redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
end
return 1
"""

TAKE_LEASE = (
    _HELD
    + """
if held == false or held == ARGV[3] or held == '' then
    redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
    return false
end
return held
"""
)
"""Leave a lease (1) for so many milliseconds (2) where nothing is, or what is of no use (3); else return what is."""

SWAP = (
    _HELD
    + """
if held ~= ARGV[1] then return 0 end
"""
    + _PUT
)
"""Put a value (2) for so many milliseconds (3; 0 for ever), or nothing if it is empty, in place of one's own (1)."""

TAKE_LOCK = (
    _HELD
    + """
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return (held and string.byte(held) == 3) and 1 or 0
"""
)
"""Leave a lock (1) for so many milliseconds (2); return 1 if it has replaced a live one."""

PUBLISH = (
    _HELD
    + """
if held == false then return 0 end
if held ~= ARGV[1] then
    if string.byte(held) ~= 3 then redis.call('DEL', KEYS[1]) end
    return 0
end
"""
    + _PUT
)
"""As SWAP; and what is neither one's own nor anybody's lock goes: it was loaded too early."""

_OTHERS = (
    _HELD
    + """
local others, longest, mine = {}, 0, false
if held and string.byte(held) == 5 then
    local left = redis.call('PTTL', KEYS[1])
    for at = 2, #held, 28 do
        local mark = string.sub(held, at, at + 11)
        local own = left - tonumber(string.sub(held, at + 12, at + 27))
        if mark == ARGV[1] then
            mine = true
        elseif own > 0 then
            others[#others + 1] = {mark, own}
            longest = math.max(longest, own)
        end
    end
end
"""
)
"""An epoch is closed by its writers' marks, each with how many milliseconds before the key it runs out.

So the one clock that counts is that by which the key runs out, as that of any other lock; and a mark's end stays the
same, whoever writes it down again.
"""

_CLOSE = """
    local value = '\\005'
    for _, each in ipairs(others) do
        value = value .. each[1] .. string.format('%016.0f', longest - each[2])
    end
    redis.call('SET', KEYS[1], value, 'PX', string.format('%.0f', longest))
"""

CLOSE_EPOCH = (
    _OTHERS
    + """
    others[#others + 1] = {ARGV[1], tonumber(ARGV[2])}
    longest = math.max(longest, tonumber(ARGV[2]))
"""
    + _CLOSE
    + """
return 0
"""
)
"""Put one's mark (1) on an epoch for so many milliseconds (2), beside those of others that have not run out."""

OPEN_EPOCH = (
    _OTHERS
    + """
if #others > 0 then
    if mine then"""
    + _CLOSE
    + """    end
elseif mine or ARGV[2] ~= '' then
    redis.call('DEL', KEYS[1])
end
return 1
"""
)
"""Take one's mark (1) away; the last mark's place is empty, so that the next who asks makes a new epoch.

After a commit (2) what is there instead of marks goes: it was made too early.
"""

MAKE_EPOCH = (
    _HELD
    + """
if held and (string.byte(held) == 5 or (string.byte(held) == 4 and #held == #ARGV[1])) then return held end
redis.call('SET', KEYS[1], ARGV[1])
return ARGV[1]
"""
)
"""Return the epoch that is there, or its lock; else put this one (1) there."""

ARRIVE = """
if redis.call('GET', KEYS[1]) == ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1])
redis.call('SET', KEYS[2], ARGV[2])
return 1
"""
"""Note of which reign of the server (1) its keys are; if of another than before, put a new epoch (2) over everything:
what a server has kept over a restart, or another has copied from it, may be older than what was there since."""
