"""Sidecar and nginx before the same trivial upstream, run in alternation. Figures compare only within one run.

Question: what does policy cost per request? Unit: CPU microseconds of the contender's own processes.
After the pairs, each contender gets a constant rate of 70 % of its own peak, measured from the times at which requests
should have started (--rate-share 0 leaves it out). --streams N measures what N idle event streams cost instead.
Every request must be answered 2xx and must have reached the upstream, by the upstream's own count.
Prints a table and, with --json FILE, the same figures for machines. Needs nginx and wrk (`make deps`).
"""

import argparse, base64, hashlib, hmac, json, os, re, resource, signal, socket, statistics, subprocess, sys, tempfile
import time, urllib.request
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")
NGINX = """worker_processes 1; daemon off; pid {dir}/{name}.pid; error_log {dir}/{name}.err;
events {{ worker_connections 1024; }}
http {{ access_log {log}; keepalive_requests 100000000; client_body_buffer_size 128k;
  client_body_temp_path {dir}/{name}-b; proxy_temp_path {dir}/{name}-p; fastcgi_temp_path {dir}/{name}-f;
  uwsgi_temp_path {dir}/{name}-u; scgi_temp_path {dir}/{name}-s;
  upstream back {{ server 127.0.0.1:{back}; keepalive 64; keepalive_requests 100000000; }}
  server {{ listen 127.0.0.1:{port}; {body} }} }}
"""
SECRET = "end-to-end bench, not for production"
COLD_TOKENS = 20000  # more than the sidecar's cache of verified tokens holds
CONNECTIONS = 32
ANSWER = '{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":"ok"}],"isError":false}}'
PROXY = 'location / { proxy_pass http://back; proxy_http_version 1.1; proxy_set_header Connection ""; }'
BACK = "location = /count { stub_status; } location / { default_type application/json; return 200 '" + ANSWER + "'; }"


def free_port():
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return held.getsockname()[1]


def until(what, check, seconds=30):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if check():
            return
        time.sleep(0.02)
    sys.exit(f"not within {seconds} s: {what}")


def accepts(port):
    try:
        socket.create_connection(("127.0.0.1", port), 0.2).close()
        return True
    except OSError:
        return False


def family(pid):
    kids = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid] + [kin for kid in kids for kin in family(int(kid))]


def cpu_ticks(pid):
    total = 0
    for member in family(pid):
        fields = Path(f"/proc/{member}/stat").read_text().rsplit(")", 1)[1].split()
        total += int(fields[11]) + int(fields[12])
    return total


def resident_mib(pid):
    kib = 0
    for member in family(pid):
        kib += int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{member}/status").read_text())[1])
    return kib / 1024


def token(user, number=0):
    """A bearer token: of its own for each number, for the same principal as long as the user is the same."""
    now = int(time.time())
    claims = {"sub": f"user{user}", "user_id": user, "scopes": ["mcp:read", "mcp:call"], "iat": now, "exp": now + 86400}
    text = lambda raw: base64.urlsafe_b64encode(raw).rstrip(b"=")
    parts = [{"typ": "JWT", "alg": "HS256"}, claims | {"jti": f"{number:08}"}]
    signed = b".".join(text(json.dumps(part, separators=(",", ":")).encode()) for part in parts)
    return (signed + b"." + text(hmac.new(SECRET.encode(), signed, hashlib.sha256).digest())).decode()


def build_load():
    """The constant-rate client and the streaming upstream, built with the bench profile."""
    command = ["cargo", "bench", "--locked", "--no-run", "--bench", "load", "--message-format", "json"]
    root = Path(__file__).resolve().parents[2]
    lines = subprocess.run(command, cwd=root, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()
    built = [entry for entry in map(json.loads, lines) if entry.get("executable")]
    return next(entry["executable"] for entry in built if entry["target"]["name"] == "load")


class Bench:
    def __init__(self, options, directory):
        self.options, self.dir, self.children = options, directory, []
        self.back, self.users, self.probes = free_port(), 0, 0

    def spawn(self, command, **more):
        child = subprocess.Popen(command, **more)
        self.children.append(child)
        return child

    def nginx(self, name, port, body, log="off"):
        conf = self.dir / f"{name}.conf"
        conf.write_text(NGINX.format(dir=self.dir, name=name, log=log, back=self.back, port=port, body=body))
        child = self.spawn(["nginx", "-p", str(self.dir), "-c", str(conf)], stderr=subprocess.DEVNULL)
        until(f"{name} accepts", lambda: accepts(port))
        return child.pid, f"http://127.0.0.1:{port}/"

    def upstream_count(self):
        """What the upstream counted itself, these questions apart."""
        text = urllib.request.urlopen(f"http://127.0.0.1:{self.back}/count").read().decode()
        self.probes += 1
        return int(re.search(r"requests\s+\d+ \d+ (\d+)", text)[1]) - self.probes

    def settled_count(self):
        """What the upstream counted, once nothing is on its way any more."""
        count = self.upstream_count()
        while True:
            time.sleep(0.1)
            count, before = self.upstream_count(), count
            if count == before:
                return count

    def sidecar(self, *more):
        deny = ", ".join(f'"deny{i}.*"' for i in range(100))
        raw = f"http://127.0.0.1:{self.back}/mcp"
        sets = [
            "runtime.threads=1", f'upstreams.bench={{url="{raw}"}}',
            f"security.deny_tools=[{deny}]", "rate_limit.enabled=true", "rate_limit.per_minute=1000000", *more,
        ]
        if self.options.redis:
            port = free_port()
            self.spawn(["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", ""], stdout=subprocess.DEVNULL)
            until("redis accepts", lambda: accepts(port))
            sets.append(f'redis.url="redis://127.0.0.1:{port}"')
        policy = self.dir / "policy.toml"
        shipped = Path(self.options.policy).read_text()
        policy.write_text(shipped.replace("\n[end]", "\n") + """
[[servers]]
handle = "bench"
transport = "web"
kind = "mcp"
enabled = true
upstream = "bench"
allow_tools = ["bench.*"]
allow_resources = []
allow_prompts = []
deny_tools = []
limits = { max_payload_kb = 256 }
rate_limit = { per_minute = 1000000 }

[end]
""")
        command = [self.options.binary, "up", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]
        command += ["--data", str(self.dir / "data"), "--policy", str(policy)]
        for assignment in sets:
            command += ["--set", assignment]
        out = self.dir / "sidecar.out"
        environment = os.environ | {"SAPI_JWT_SECRET": SECRET}
        child = self.spawn(
            command, env=environment, stdout=out.open("w"), stderr=(self.dir / "sidecar.err").open("w"))

        def ready():
            if child.poll() is not None:
                sys.exit((self.dir / "sidecar.err").read_text() + out.read_text())
            return re.search(r"^ready", out.read_text(), re.M)
        until("the sidecar is ready", ready)
        said = dict(re.findall(r"^(\w+)\s+(\S+)", out.read_text(), re.M))
        self.admin = said["admin"]
        return child.pid, re.sub(r"[^/]+$", "bench", said["mcp"])

    def allowed(self):
        text = urllib.request.urlopen(self.admin + "/metrics").read().decode()
        rows = re.findall(r'^mcp_sidecar_requests_total\{[^}]*decision="allow"[^}]*\} (\S+)', text, re.M)
        return int(sum(map(float, rows)))

    def fresh_user(self):
        """Each run is a user's of its own, so that no run reaches the limit of a minute."""
        self.users += 1
        return self.users

    def load(self, pid, url):
        body = '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"bench.echo","arguments":{"text":"'
        size = self.options.body_kb * 1024 or 150
        body += "x" * max(0, size - len(body) - 5) + '"}}}'
        user = self.fresh_user()
        script = self.dir / "load.lua"
        cold = ""
        if self.options.cold:
            tokens = self.dir / "tokens"
            tokens.write_text("".join(token(user, number) + "\n" for number in range(COLD_TOKENS)))
            cold = f"""local prepared, turn = {{}}, 0
function init(args)
  for line in io.lines("{tokens}") do
    wrk.headers["Authorization"] = "Bearer " .. line
    prepared[#prepared + 1] = wrk.format()
  end
end
function request()
  turn = turn % #prepared + 1
  return prepared[turn]
end
"""
        script.write_text(f"""wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Authorization"] = "Bearer {token(user)}"
wrk.body = [[{body}]]
{cold}
function done(s, l, r)
  io.write(string.format("FIGURES %d %d %d %f %f\\n", s.requests, s.duration,
    s.errors.status + s.errors.connect + s.errors.read + s.errors.write + s.errors.timeout,
    l:percentile(50), l:percentile(99)))
end
""")
        seen, before = self.settled_count(), cpu_ticks(pid)
        run = subprocess.run(
            ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{self.options.seconds}s", "-s", str(script), url],
            capture_output=True, text=True, check=True)
        spent = cpu_ticks(pid) - before
        requests, micros, errors, p50, p99 = map(float, re.search(r"FIGURES (.*)", run.stdout)[1].split())
        if errors or not requests:
            sys.exit(f"{url}: {errors:.0f} failures in {requests:.0f} requests\n{run.stdout}")
        self.check_upstream(url, seen, int(requests), CONNECTIONS)
        return {"requests": int(requests), "rps": requests / micros * 1e6, "p50_us": p50, "p99_us": p99,
                "cpu_us": spent / TICK * 1e6 / requests, "rss_mib": resident_mib(pid)}

    def check_upstream(self, url, before, answered, under_way):
        """wrk stops counting at its deadline; up to one request per connection may be under way then."""
        until(f"the upstream has counted {answered}", lambda: self.upstream_count() - before >= answered, 5)
        counted = self.settled_count() - before
        # One more each: wrk may have read an answer that it does not count any more, and sent the next request.
        if counted - answered > 2 * under_way:
            sys.exit(f"{url}: {answered} requests were answered, the upstream counted {counted}")

    def constant(self, pid, url, rate):
        """A constant rate, on a schedule that answers cannot slow down."""
        seconds = max(self.options.seconds, 5)
        text = max(30, self.options.body_kb * 1024 - 120)
        command = [self.options.load, "rate", "--url", url, "--token", token(self.fresh_user())]
        command += ["--rate", str(rate), "--seconds", str(seconds), "--text", str(text)]
        seen, before = self.settled_count(), cpu_ticks(pid)
        found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        spent = cpu_ticks(pid) - before
        if found["failures"]:
            sys.exit(f"{url}: {found['failures']} failures at {rate:.0f}/s: {found['example']}")
        self.check_upstream(url, seen, found["requests"], 0)
        return found | {"cpu_us": spent / TICK * 1e6 / found["requests"]}

    def streams(self):
        """What so many idle event streams cost the sidecar, and whether it holds them all."""
        room = (resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 400) // 2
        count = min(self.options.streams, room)
        if count < self.options.streams:
            print(f"only {count} streams: a process may have no more descriptors (ulimit -Hn)")
        upstream = self.spawn([self.options.load, "upstream"], stdout=subprocess.PIPE, text=True)
        self.back = int(upstream.stdout.readline().split()[1])
        pid, url = self.sidecar(
            "stream.enabled=true", "stream.max_stream_seconds=3600", f"runtime.per_address={min(count + 100, 65535)}",
            f"runtime.max_connections={count + 1000}",
            f"audit.queue={count + 8192}")  # an open stream keeps its place in the audit queue
        command = [self.options.load, "streams", "--url", url, "--token", token(self.fresh_user())]
        def hold(number):
            client = self.spawn(
                command + ["--count", str(number)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            opened = int(client.stdout.readline().split()[1])
            if opened != number:
                sys.exit(f"{opened} of {number} streams opened")
            return client
        def release(client):
            client.stdin.close()
            alive = int(client.stdout.readline().split()[1])
            client.wait()
            return alive
        release(hold(100))  # what a first stream sets up counts as the start
        start, began = resident_mib(pid), time.monotonic()
        client = hold(count)
        opening, before, full = time.monotonic() - began, cpu_ticks(pid), resident_mib(pid)
        idle = max(self.options.seconds, 20)
        time.sleep(idle)
        spent, settled = cpu_ticks(pid) - before, resident_mib(pid)
        alive = release(client)
        counted = int(urllib.request.urlopen(f"http://127.0.0.1:{self.back}/count").read())
        if alive != count or counted != count + 100:
            sys.exit(f"{alive} of {count} streams lived for {idle} s; the upstream counted {counted} calls")
        return {"streams": count, "opening_s": opening, "rss_before_mib": start, "rss_open_mib": full,
                "rss_idle_mib": settled, "kib_per_stream": (settled - start) * 1024 / count,
                "idle_cpu_per_cent": spent / TICK / idle * 100}

    def close(self):
        for child in reversed(self.children):
            if child.poll() is None:
                child.send_signal(signal.SIGKILL if child.args[0] == self.options.binary else signal.SIGTERM)
                child.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binary", default="target/release/mcp-sidecar")
    parser.add_argument("--policy", default="conf/policy.toml")
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--body-kb", type=int, default=0, help="0 sends 150 bytes")
    parser.add_argument("--redis", action="store_true")
    parser.add_argument("--cold", action="store_true", help="a token that was not seen before with each request")
    parser.add_argument("--rate-share", type=float, default=0.7, help="constant rate, as a share of the peak; 0: none")
    parser.add_argument("--streams", type=int, default=0, help="measure so many idle event streams instead")
    parser.add_argument("--load", help="built with the bench profile, unless given")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if not options.load and (options.streams or options.rate_share):
        options.load = build_load()
    raise_descriptors()
    if options.streams:
        return measure_streams(options)
    with tempfile.TemporaryDirectory() as directory:
        bench = Bench(options, Path(directory))
        try:
            bench.nginx("back", bench.back, BACK)
            contenders = {
                "nginx": bench.nginx("plain", free_port(), PROXY),
                "nginx+log": bench.nginx("logged", free_port(), PROXY, f"{directory}/access.log"),
                "sidecar": bench.sidecar(),
            }
            for contender in contenders.values():
                bench.load(*contender)
            start, rounds = bench.allowed(), {name: [] for name in contenders}
            reached, constant = 0, {}
            for number in range(options.pairs):
                order = list(contenders) if number % 2 == 0 else list(reversed(contenders))
                for name in order:
                    before = bench.settled_count()
                    rounds[name].append(bench.load(*contenders[name]))
                    if name == "sidecar":
                        reached += bench.settled_count() - before
            median_rps = {name: statistics.median(r["rps"] for r in rounds[name]) for name in contenders}
            if options.rate_share:
                for name, contender in contenders.items():
                    before = bench.settled_count()
                    # The client is dearer than wrk and shares the machine: asked for too much, it shows what there is.
                    peak = min(median_rps[name], bench.constant(*contender, median_rps[name])["achieved_rps"])
                    constant[name] = bench.constant(*contender, peak * options.rate_share)
                    if name == "sidecar":
                        reached += bench.settled_count() - before
            # What the sidecar permitted is what the upstream got from it.
            until(f"the sidecar counts {reached} permitted requests", lambda: bench.allowed() - start == reached, 5)
        finally:
            bench.close()
    median = lambda name, key: statistics.median(r[key] for r in rounds[name])
    keys = ["rps", "p50_us", "p99_us", "cpu_us", "rss_mib"]
    table = {name: {key: round(median(name, key), 2) for key in keys} for name in rounds}
    print(f"{'':10}" + "".join(f"{key:>12}" for key in keys))
    for name, row in table.items():
        print(f"{name:10}" + "".join(f"{row[key]:12.2f}" for key in keys))
    ratios = {}
    for base in ("nginx", "nginx+log"):
        for key in ("cpu_us", "rps"):
            pairs = [ours[key] / theirs[key] for ours, theirs in zip(rounds["sidecar"], rounds[base])]
            ratios[f"{key} sidecar/{base}"] = round(statistics.median(pairs), 3)
    for name, ratio in ratios.items():
        print(f"median pair ratio, {name}: {ratio}")
    for name, found in constant.items():
        keys = ["p50_us", "p99_us", "p999_us", "max_us", "cpu_us", "pacer_late_us"]
        print(f"{name} at {found['asked_rps']:.0f}/s ({options.rate_share:.0%} of its peak with this client), sent "
              f"{found['achieved_rps']:.0f}/s: " + ", ".join(f"{key} {found[key]:.0f}" for key in keys))
        if found["achieved_rps"] < 0.99 * found["asked_rps"]:
            print("  the rate was not kept: these are times of a growing queue, here or there; give it an idle machine")
    if options.json:
        figures = {"medians": table, "ratios": ratios, "constant_rate": constant, "rounds": rounds}
        options.json.write_text(json.dumps(figures, indent=1))


def raise_descriptors():
    """A stream takes two descriptors of the sidecar. Root may raise the hard limit; others get what they have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(hard, 65536), max(hard, 65536)))
    except (ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def measure_streams(options):
    with tempfile.TemporaryDirectory() as directory:
        bench = Bench(options, Path(directory))
        try:
            found = bench.streams()
        finally:
            bench.close()
    for key, value in found.items():
        print(f"{key:20}{value:12.1f}")
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))


main()
