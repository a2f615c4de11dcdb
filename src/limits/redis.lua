-- Takes one unit from each bucket, or none from any.
-- KEYS: a counter per charge, all in one slot. ARGV, three per key: limit, window in ms, "a" if aligned to the epoch.
-- Returns 0, or {index from 0 of the charge that waits longest, milliseconds it waits}.
-- Time is Redis's own, so that proxies whose clocks differ share windows exactly.
local waits, index = -1, 0
local counted = {}
for i, key in ipairs(KEYS) do
  local count = redis.call('GET', key)
  counted[i] = count
  if tonumber(count or 0) >= tonumber(ARGV[3 * i - 2]) then
    local left = tonumber(ARGV[3 * i - 1])
    if count then
      local ttl = redis.call('PTTL', key)
      if ttl >= 0 then
        left = ttl
      else
        -- Somebody took its expiry away; it must not be full for good.
        redis.call('PEXPIRE', key, left)
      end
    end
    if left > waits then
      waits, index = left, i - 1
    end
  end
end
if waits >= 0 then
  return {index, waits}
end
for i, key in ipairs(KEYS) do
  if counted[i] then
    redis.call('INCR', key)
  else
    local left = tonumber(ARGV[3 * i - 1])
    if ARGV[3 * i] == 'a' then
      local now = redis.call('TIME')
      local ms = now[1] * 1000 + math.floor(now[2] / 1000)
      left = left - ms % left
    end
    redis.call('SET', key, 1, 'PX', string.format('%d', left))
  end
end
return 0
