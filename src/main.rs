use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // The allocator asks for huge pages: they double what is resident, and calls take as long without them.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    mcp_sidecar::cli::run()
}
