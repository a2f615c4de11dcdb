"""Sidecar and nginx before the same trivial upstream, run in alternation. Figures compare only within one run.

Question: what does policy cost per request? Unit: CPU microseconds of the contender's own processes.
Prints a table and, with --json FILE, the same figures for machines. Needs nginx and wrk (`make deps`).
"""

import argparse, json, os, re, signal, socket, statistics, subprocess, sys, tempfile, time, urllib.request
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
ANSWER = '{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":"ok"}],"isError":false}}'
PROXY = 'location / { proxy_pass http://back; proxy_http_version 1.1; proxy_set_header Connection ""; }'
BACK = "location / { default_type application/json; return 200 '" + ANSWER + "'; }"


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


class Bench:
    def __init__(self, options, directory):
        self.options, self.dir, self.children = options, directory, []
        self.back = free_port()

    def spawn(self, command, **more):
        child = subprocess.Popen(command, **more)
        self.children.append(child)
        return child

    def nginx(self, name, port, body, log="off"):
        conf = self.dir / f"{name}.conf"
        conf.write_text(NGINX.format(dir=self.dir, name=name, log=log, back=self.back, port=port, body=body))
        child = self.spawn(["nginx", "-p", str(self.dir), "-c", str(conf)], stderr=subprocess.DEVNULL)
        until(f"{name} accepts", lambda: accepts(port))
        return child.pid, f"http://127.0.0.1:{port}/", ""

    def sidecar(self):
        deny = ", ".join(f'"deny{i}.*"' for i in range(100))
        raw = f"http://127.0.0.1:{self.back}/mcp"
        sets = [
            "runtime.threads=1", f'upstreams.bench={{url="{raw}"}}',
            f"security.deny_tools=[{deny}]", "rate_limit.enabled=true", "rate_limit.per_minute=1000000",
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
        child = self.spawn(command, stdout=out.open("w"), stderr=(self.dir / "sidecar.err").open("w"))
        def ready():
            if child.poll() is not None:
                sys.exit((self.dir / "sidecar.err").read_text() + out.read_text())
            return re.search(r"^ready", out.read_text(), re.M)
        until("the sidecar is ready", ready)
        said = dict(re.findall(r"^(\w+)\s+(\S+)", out.read_text(), re.M))
        self.admin = said["admin"]
        return child.pid, re.sub(r"[^/]+$", "bench", said["mcp"]), said["token"]

    def allowed(self):
        text = urllib.request.urlopen(self.admin + "/metrics").read().decode()
        rows = re.findall(r'^mcp_sidecar_requests_total\{[^}]*decision="allow"[^}]*\} (\S+)', text, re.M)
        return int(sum(map(float, rows)))

    def load(self, pid, url, token):
        body = '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"bench.echo","arguments":{"text":"'
        size = self.options.body_kb * 1024 or 150
        body += "x" * max(0, size - len(body) - 5) + '"}}}'
        script = self.dir / "load.lua"
        script.write_text(f"""wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Authorization"] = "Bearer {token or 'none'}"
wrk.body = [[{body}]]
function done(s, l, r)
  io.write(string.format("FIGURES %d %d %d %f %f\\n", s.requests, s.duration,
    s.errors.status + s.errors.connect + s.errors.read + s.errors.write + s.errors.timeout,
    l:percentile(50), l:percentile(99)))
end
""")
        before = cpu_ticks(pid)
        run = subprocess.run(
            ["wrk", "-t1", "-c32", f"-d{self.options.seconds}s", "-s", str(script), url],
            capture_output=True, text=True, check=True)
        spent = cpu_ticks(pid) - before
        requests, micros, errors, p50, p99 = map(float, re.search(r"FIGURES (.*)", run.stdout)[1].split())
        if errors or not requests:
            sys.exit(f"{url}: {errors:.0f} failures in {requests:.0f} requests\n{run.stdout}")
        return {"requests": int(requests), "rps": requests / micros * 1e6, "p50_us": p50, "p99_us": p99,
                "cpu_us": spent / TICK * 1e6 / requests, "rss_mib": resident_mib(pid)}

    def close(self):
        for child in reversed(self.children):
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
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
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
            for number in range(options.pairs):
                order = list(contenders) if number % 2 == 0 else list(reversed(contenders))
                for name in order:
                    rounds[name].append(bench.load(*contenders[name]))
            sent, counted = sum(r["requests"] for r in rounds["sidecar"]), bench.allowed() - start
            # wrk stops counting at its deadline; up to one request per connection and run may still be under way.
            if not 0 <= counted - sent <= 32 * options.pairs:
                sys.exit(f"wrk counted {sent} requests, the sidecar permitted {counted}")
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
    if options.json:
        options.json.write_text(json.dumps({"medians": table, "ratios": ratios, "rounds": rounds}, indent=1))


main()
