//! The conversation and the index in words.

use super::{Index, World};
use crate::cast;

impl Index {
    /// A line for the conversation, the outbox, the index, and what is under way.
    pub(super) fn lines(&self, world: &World) -> Vec<String> {
        let taken_back = world.taken_back.map(|(target, at)| format!(", {target} taken back by {at}"));
        let seqs = |seqs: &mut dyn Iterator<Item = &u64>| match seqs.map(u64::to_string).collect::<Vec<_>>() {
            none if none.is_empty() => "none".to_owned(),
            some => some.join(", "),
        };
        let conversation =
            format!("conversation at a: last seq {}{}", world.said, taken_back.unwrap_or_default());
        let rows = format!("outbox rows that are durable: {}", seqs(&mut world.rows.iter()));
        let heard = format!("outbox rows that the dispatcher knows: {}", seqs(&mut world.heard.iter()));
        let emptied = world.preview.iter().filter(|(_, has_content)| !**has_content).map(|(seq, _)| seq);
        let first = world.preview.keys().next().copied().unwrap_or_default();
        let entry = format!(
            "bob's index at {}: last seq {}, previews {} from {first}, without content: {}",
            cast::site(world.served),
            world.last_seq(),
            world.preview.len(),
            seqs(&mut emptied.into_iter()),
        );
        let requests = world.requests.iter().map(|rows| format!("under way: {rows}"));
        let answers = world.answers.iter().map(|answer| format!("under way: {answer}"));
        let lines = [conversation, rows, heard, entry].into_iter();
        lines.chain(requests).chain(answers).collect()
    }
}
