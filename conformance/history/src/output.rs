//! What programs that tell of histories do when what they print cannot be written.

use std::panic;

/// The tool itself failed.
const FAILED: i32 = 4;

/// From now on output that cannot be written, say to a full disk, ends the program with what is wrong.
/// `println!` can only panic, and that is no bug of the program.
pub fn mind() {
    let usual = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        let Some(why) = panic.payload_as_str().and_then(unwritten) else { return usual(panic) };
        eprintln!("error: what was found cannot be written to standard output: {why}");
        std::process::exit(FAILED);
    }));
}

/// Why nothing could be written, when it was the output that failed.
fn unwritten(said: &str) -> Option<&str> {
    said.strip_prefix("failed printing to stdout: ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_output_s_own_failures_are_taken_for_such() {
        let full = "failed printing to stdout: No space left on device (os error 28)";
        assert_eq!(unwritten(full), Some("No space left on device (os error 28)"));
        assert_eq!(unwritten("index out of bounds"), None);
    }
}
