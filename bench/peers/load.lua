-- The requests of every workload, for wrk. Which one, and its numbers, come as name=value after
-- "--"; the figures leave as one line of JSON.

local browsers = {
  "User-Agent: Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36\r\n" ..
  'sec-ch-ua: "Google Chrome";v="131", "Chromium";v="131", "Not_A Brand";v="24"\r\nsec-ch-ua-mobile: ?0\r\nsec-ch-ua-platform: "Windows"\r\n' ..
  "Accept: image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8\r\nSec-Fetch-Site: same-origin\r\nSec-Fetch-Mode: no-cors\r\nSec-Fetch-Dest: image\r\n" ..
  "Accept-Encoding: gzip, deflate, br, zstd\r\nAccept-Language: ja,en-US;q=0.9,en;q=0.8\r\n",
  "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:133.0) Gecko/20100101 Firefox/133.0\r\n" ..
  "Accept: image/avif,image/webp,image/png,image/svg+xml,image/*;q=0.8,*/*;q=0.5\r\nAccept-Language: en-US,en;q=0.5\r\nAccept-Encoding: gzip, deflate, br, zstd\r\n" ..
  "Connection: keep-alive\r\nSec-Fetch-Dest: image\r\nSec-Fetch-Mode: no-cors\r\nSec-Fetch-Site: same-origin\r\nPriority: u=5, i\r\n",
  "User-Agent: Mozilla/5.0 (iPhone; CPU iPhone OS 18_1_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.1.1 Mobile/15E148 Safari/604.1\r\n" ..
  "Accept: image/webp,image/avif,image/jxl,image/heic,image/heic-sequence,video/*;q=0.8,image/png,image/svg+xml,image/*;q=0.8,*/*;q=0.5\r\n" ..
  "Accept-Language: ja\r\nAccept-Encoding: gzip, deflate\r\nConnection: keep-alive\r\n",
  "User-Agent: Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36 Edg/131.0.0.0\r\n" ..
  'sec-ch-ua: "Microsoft Edge";v="131", "Chromium";v="131", "Not_A Brand";v="24"\r\nsec-ch-ua-mobile: ?0\r\nsec-ch-ua-platform: "Windows"\r\nDNT: 1\r\n' ..
  "Accept: text/css,*/*;q=0.1\r\nSec-Fetch-Site: same-origin\r\nSec-Fetch-Mode: no-cors\r\nSec-Fetch-Dest: style\r\n" ..
  "Accept-Encoding: gzip, deflate, br, zstd\r\nAccept-Language: en-GB,en;q=0.9\r\n",
  "User-Agent: Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Mobile Safari/537.36\r\n" ..
  'sec-ch-ua: "Google Chrome";v="131", "Chromium";v="131", "Not_A Brand";v="24"\r\nsec-ch-ua-mobile: ?1\r\nsec-ch-ua-platform: "Android"\r\n' ..
  "Accept: */*\r\nSec-Fetch-Site: same-origin\r\nSec-Fetch-Mode: cors\r\nSec-Fetch-Dest: empty\r\n" ..
  "Accept-Encoding: gzip, deflate, br, zstd\r\nAccept-Language: ja-JP,ja;q=0.9,en-US;q=0.8\r\n",
}
for i, fields in ipairs(browsers) do
  browsers[i] = " HTTP/1.1\r\nHost: www.example.net\r\n" .. fields
end
local referer = "Referer: http://www.example.net/"
local common = browsers[1] .. referer .. "\r\n\r\n"

local function zipf_path(rank, classes)
  return "/zipf/" .. (rank * 7919) % classes .. "/" .. rank
end

-- Ranks 1..objects by Zipf's law with the exponent 0.9, drawn before the clock starts.
local function zipf_draws(objects)
  local upto, total = {}, 0
  for rank = 1, objects do
    total = total + rank ^ -0.9
    upto[rank] = total
  end
  local draws = {}
  for i = 1, 131072 do
    local goal, low, high = math.random() * total, 1, objects
    while low < high do
      local middle = math.floor((low + high) / 2)
      if upto[middle] < goal then low = middle + 1 else high = middle end
    end
    draws[i] = low
  end
  return draws
end

local plays = {}

function plays.one(given)
  local request = "GET " .. given.path .. common
  return function() return request end
end

function plays.cond(given)
  local plain = "GET " .. given.path .. common
  local conditional = "GET " .. given.path .. browsers[1] .. "If-None-Match: " .. given.etag .. "\r\n\r\n"
  local i = 0
  return function()
    i = i + 1
    return i % 2 == 0 and conditional or plain
  end
end

function plays.heads(given)
  local start = "GET " .. given.path
  local i = 0
  return function()
    i = i + 1
    return start .. browsers[i % 5 + 1] .. referer .. "\r\nCookie: session=" .. given.run .. "-" .. i .. "\r\n\r\n"
  end
end

function plays.range(given)
  local start, last = "GET " .. given.path .. browsers[1] .. "Range: bytes=", given.size - given.part
  return function()
    local first = math.random(0, last)
    return start .. string.format("%d-%d", first, first + given.part - 1) .. "\r\n\r\n"
  end
end

function plays.new(given)
  local start = "GET /miss/" .. given.run .. "/"
  local i = 0
  return function()
    i = i + 1
    return start .. i .. common
  end
end

function plays.zipf(given)
  local objects, classes, misses = given.objects, given.classes, given.misses or 0
  local draws = zipf_draws(objects)
  local kinds, chances = {}, {}
  for i = 1, #draws do
    kinds[i], chances[i] = math.random(5), math.random()
  end
  local i, unique = 0, 0
  return function()
    i = i % #draws + 1
    unique = unique + 1
    local rank, fields = draws[i], browsers[kinds[i]]
    local path = zipf_path(rank, classes)
    if chances[i] < misses then path = path .. "-" .. given.run .. "-" .. unique end
    -- A tenth has what no other request has; spread evenly over what hits and what misses.
    if chances[i] * 1000 % 1 < 0.1 then
      return "GET " .. path .. fields .. referer .. "page/" .. unique .. "\r\nCookie: session=" .. given.run .. "-" .. unique .. "\r\n\r\n"
    end
    return "GET " .. path .. fields .. referer .. "\r\n\r\n"
  end
end

-- Not measured: every zipf object once, or the first `count` of a run's new ones.
function plays.each_zipf(given)
  local i = 0
  return function()
    i = i % given.objects + 1
    return "GET " .. zipf_path(i, given.classes) .. common
  end
end

function plays.each_new(given)
  local i = 0
  return function()
    i = i % given.count + 1
    return "GET /miss/" .. given.run .. "/" .. i .. common
  end
end

function init(args)
  local given = {}
  for _, word in ipairs(args) do
    local name, value = word:match("^([^=]+)=(.*)$")
    given[name] = tonumber(value) or value
  end
  math.randomseed(given.seed or 1)
  request = plays[given.play](given)
  if given.answers then
    local got = 0
    response = function(status)
      if status ~= 200 then
        io.stderr:write("answered with " .. status .. "\n")
        os.exit(1)
      end
      got = got + 1
      if got == given.answers then os.exit(0) end
    end
  end
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '\n{"requests": %d, "microseconds": %d, "p50": %d, "p99": %d, "bytes": %d, ' ..
    '"connect": %d, "read": %d, "write": %d, "status": %d, "timeout": %d}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99), summary.bytes,
    errors.connect, errors.read, errors.write, errors.status, errors.timeout))
end
