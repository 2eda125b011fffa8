//! The `gnomon` command: argv → one verb of `gnomon::cli`.

use std::process::ExitCode;

fn main() -> ExitCode {
    gnomon::cli::main()
}
