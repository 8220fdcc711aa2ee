//! The `nexus` binary: everything is in the library.

/// Wipes what is freed: a credential is in more buffers (of TLS, of HTTP, of strings that grow) than types of ours.
#[global_allocator]
static ALLOCATOR: zeroizing_alloc::ZeroAlloc<mimalloc::MiMalloc> = zeroizing_alloc::ZeroAlloc(mimalloc::MiMalloc);

fn main() -> std::process::ExitCode {
    nexus::cli::main()
}
