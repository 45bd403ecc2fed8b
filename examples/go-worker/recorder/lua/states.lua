-- The states of ids, and where ids without a day are kept; put before each script that looks at them, behind contract.lua.
--
-- Keys that it names, all in the project's slot, so by their prefix: PREFIX .. what.
--
--   deliveries:undated:N, events:undated:N, attempt-ids:undated:N  HASH  undated ids, by hash modulo 4096; permanent, an id
--     goes from there when its day has ended
--   undated   ZSET  undated ids by the number of the day of their first sight: a letter for the kind (d, e, a), the number
--     of the hash (2 bytes), the id; permanent; serves to end them
--   open:N    HASH  deliveries of settled days that are not final, by the last byte of their id; permanent, an id goes when
--     it is final or expired

-- A day's ids fill one hash, then 16, then 256, then 4096: few large hashes for a small project and many small ones
-- for a large one, all of them short enough for Redis to keep them packed.
local NODE_ENTRIES, FANOUTS = 128, {1, 16, 256, 4096}

local PREFIX = KEYS[1]:sub(1, -5)
local UNDATED_NODES, OPEN_NODES = 4096, 256
local DISCARDED = 4  -- from this rank on a status is final

local function open_node(id) return PREFIX .. 'open:' .. id:byte(-1) end

-- An undated id, kept in `node`, in the index that serves to end it.
local function undated_member(letter, node, id)
  return letter .. struct.pack('>I2', tonumber(node:match('%d+$'))) .. id
end

local function day_of_ulid(id) return day_of_number(math.floor(struct.unpack('>I6', id) / 86400000) - MARCH_2000) end

-- The state of an undated id begins with the number of the day of its first sight (2 bytes).
local function undated_day(state) return day_of_number((struct.unpack('>I2', state))) end

-- States keep times as offsets from the time that the id tells (for an undated id, from the end of its day), in as few
-- bytes as they need.
local function origin_of(id, of)
  return of and end_of(of) * 1000000 or struct.unpack('>I6', id) * 1000
end

-- How many bytes a signed number takes.
local function width_of(number)
  if number < 0 then number = -number - 1 end
  local width, limit = 1, 128
  while number >= limit do width, limit = width + 1, limit * 256 end
  return width
end

-- How many bytes a group's number takes.
local function digits_of(number)
  return number < 0x100 and 1 or number < 0x10000 and 2 or number < 0x1000000 and 3 or 4
end

-- An event is the widths of what follows (bits 0 to 2: bytes of the time less one; 3 and 4: those of the group less
-- one), the offset of its time, and its group.
local function decode_event(state, origin)
  local widths = state:byte(1)
  local at, number = struct.unpack('>i' .. widths % 8 + 1 .. 'I' .. math.floor(widths / 8) + 1, state, 2)
  return number, at + origin
end

local function encode_event(number, at, origin)
  local offset = at - origin
  local width, digits = width_of(offset), digits_of(number)
  return struct.pack('>Bi' .. width .. 'I' .. digits, width - 1 + 8 * (digits - 1), offset, number)
end

-- Head of a delivery's state: its layout for each value of the second byte.
local layouts = {}
local function layout_of(widths)
  if not layouts[widths] then
    local far, near = widths % 8 + 1, math.floor(widths / 8) % 8 + 1
    layouts[widths] = ('>i%di%di%dI%d'):format(far, far, near, math.floor(widths / 64) + 1)
  end
  return layouts[widths]
end

local SET, CREATED, ROW = 0, 1, 2  -- kinds of records, the weakest first
local CREATED_BY_ROW = 4  -- the kind of a creation time that a row told

-- The kind of labels that the bit stands for.
local function labels_kind_of(bit, created_kind)
  return bit == 0 and SET or created_kind == CREATED_BY_ROW and ROW or CREATED
end

-- The head of a delivery's state, which every one begins with: what it is, and where what follows the head begins.
--
-- First byte: status (bits 0 to 2), kind of the creation time less one (3 and 4), kind of the labels (5), whether the
-- status was set and not created (6), whether more follows the head (7). One bit is enough for the labels: 0 is a status
-- set; 1 is a row where the creation time is from one, else a created record. Other labels are mixed ones. Second byte: bytes
-- of the next two offsets less one (bits 0 to 2), of the third less one (3 to 5), of the group less one (6 and 7).
-- Then the offsets of the status's, the labels' and the creation time, and the group.
local function decode_head(state, origin)
  local first, widths = state:byte(1, 2)
  local status_at, labels_at, created, number, position = struct.unpack(layout_of(widths), state, 3)
  local created_kind = math.floor(first / 8) % 4 + 1
  return {
    status = first % 8, created_kind = created_kind,
    labels_kind = labels_kind_of(math.floor(first / 32) % 2, created_kind),
    is_set = math.floor(first / 64) % 2 == 1, has_more = first >= 128,
    status_at = status_at + origin, labels_at = labels_at + origin, created = created + origin, number = number,
  }, position
end

local function encode_head(held, origin)
  local status_at, labels_at, created = held.status_at - origin, held.labels_at - origin, held.created - origin
  local far, near = math.max(width_of(status_at), width_of(labels_at)), width_of(created)
  local widths = far - 1 + 8 * (near - 1) + 64 * (digits_of(held.number) - 1)
  local first = held.status + 8 * (held.created_kind - 1) + (held.labels_kind == SET and 0 or 32)
    + (held.is_set and 64 or 0) + (held.has_more and 128 or 0)
  return string.char(first, widths) .. struct.pack(layout_of(widths), status_at, labels_at, created, held.number)
end

