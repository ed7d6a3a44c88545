//! Chats: made by one or by both at once, found in one way or another, talked in by everybody at a time.

use std::time::Duration;

use super::dice::Dice;
use super::people::Device;
use super::script::{Script, Thread};
use crate::scenario::Act;

/// What somebody in a chat does next.
#[derive(Clone, Copy)]
enum Deed {
    Say,
    Read,
    ReadIndex,
    Hide,
    Look,
    LogIn,
    OffForAWhile,
}

/// What is said. Each message ends with its own number: it is looked for where it must not be.
const SAYINGS: [&str; 8] = [
    "The ferry leaves at seven.",
    "Bring the blue folder.",
    "Who has the key?",
    "It is snowing here.",
    "Lunch as usual?",
    "I have read it twice.",
    "Not before Thursday.",
    "Ask them about the invoice.",
];

impl Script {
    /// Two people: in many cases both create at once (CNV-003).
    pub(super) fn pair(&mut self, n: u64, dice: &Dice) {
        let [one, other] = self.several(dice, 2).try_into().unwrap_or_default();
        if other.is_empty() {
            return;
        }
        let (chat, begins) = (format!("pair{n}"), self.begins(dice));
        let mut first = self.thread(n, Device::phone(&one), begins);
        let mut second = self.thread(n, Device::phone(&other), begins);
        let made = first.does(self, Duration::ZERO, Duration::ZERO, creates(&chat, &[&other], false));
        match dice.weighted(&[(45, 0), (35, 1), (20, 2)]) {
            0 => {
                let apart = dice.few(0, 400);
                let act = creates(&chat, &[&one], false);
                second.does(self, Duration::from_millis(apart), Duration::ZERO, act);
            }
            1 => {
                second.waits_for(std::slice::from_ref(&made));
                second.does(self, pause(dice), Duration::ZERO, finds(dice, &chat, &one));
            }
            _ => drop(second.does(self, pause(dice), Duration::ZERO, finds(dice, &chat, &one))),
        }
        let mut threads = vec![first, second];
        if dice.percent(20) {
            threads.push(self.tablet(n, dice, &other, begins, &made, finds(dice, &chat, &one)));
        }
        self.chatter(dice, &chat, &mut threads, false);
    }

    /// Three to six people, and perhaps somebody who is brought in later (CNV-006).
    pub(super) fn group(&mut self, n: u64, dice: &Dice) {
        let mut people = self.several(dice, dice.few(3, 6) as usize);
        let late = if people.len() > 3 && dice.percent(40) { people.pop() } else { None };
        let Some((creator, others)) = people.split_first().filter(|(_, others)| others.len() > 1) else {
            return;
        };
        let (chat, begins) = (format!("group{n}"), self.begins(dice));
        let mut first = self.thread(n, Device::phone(creator), begins);
        let with: Vec<&String> = others.iter().collect();
        let made = first.does(self, Duration::ZERO, Duration::ZERO, creates(&chat, &with, true));
        let mut threads = vec![first];
        for name in others {
            let dice = dice.stream(name);
            let mut thread = self.thread(n, Device::phone(name), begins);
            // Whoever waits from the beginning takes what comes first; whoever comes later finds what it is.
            if dice.percent(70) {
                thread.waits_for(std::slice::from_ref(&made));
            }
            thread.does(self, pause(&dice), Duration::ZERO, awaits(&dice, &chat));
            threads.push(thread);
        }
        if dice.percent(15) {
            let act = awaits(dice, &chat);
            threads.push(self.tablet(n, dice, &others[0], begins, &made, act));
        }
        if let Some(late) = late {
            let brought = dice.between(0, threads.len() as u64 - 1) as usize;
            let act = Act::Add { chat: chat.clone(), who: late.clone() };
            let added = threads[brought].does(self, dice.millis(0, 4_000), Duration::ZERO, act);
            let mut thread = self.thread(n, Device::phone(&late), begins);
            thread.waits_for(&[added]);
            thread.does(self, pause(dice), Duration::ZERO, awaits(dice, &chat));
            threads.push(thread);
        }
        self.chatter(dice, &chat, &mut threads, true);
    }

    /// Everybody in a chat does this and that; in some there are calls, before, between or after it.
    pub(super) fn chatter(&mut self, dice: &Dice, chat: &str, threads: &mut [Thread], group: bool) {
        let deeds = appetite(&dice.stream("appetite"));
        let calls = if dice.percent(if group { 30 } else { 40 }) { dice.between(1, 2) } else { 0 };
        self.deeds(&dice.stream("before"), chat, threads, &deeds);
        for n in 0..calls {
            let dice = dice.stream(&format!("call{n}"));
            self.call(&dice, chat, threads);
            self.deeds(&dice, chat, threads, &deeds);
        }
    }

    fn deeds(&mut self, dice: &Dice, chat: &str, threads: &mut [Thread], deeds: &[(u64, Deed)]) {
        for (n, thread) in threads.iter_mut().enumerate() {
            let dice = dice.stream(&format!("{n}/{}", thread.device.user));
            for _ in 0..dice.few(0, 5) {
                self.deed(&dice, chat, thread, dice.weighted(deeds));
            }
        }
    }

    fn deed(&mut self, dice: &Dice, chat: &str, thread: &mut Thread, deed: Deed) {
        let chat = chat.to_owned();
        let act = match deed {
            Deed::Say => {
                let saying = dice.one_of(&SAYINGS).copied().unwrap_or_default();
                // A number of six digits, so that no two messages of a run are likely the same.
                Act::Say { chat, text: format!("{saying} No. {}.", dice.between(100_000, 999_999)) }
            }
            Deed::Read => Act::Read { chat },
            Deed::ReadIndex => Act::ReadIndex {},
            Deed::Hide => Act::Hide { chat },
            Deed::Look => Act::Look { chat },
            Deed::LogIn => Act::LogIn {},
            Deed::OffForAWhile => {
                thread.does(self, pause(dice), jitter(dice), Act::Disconnect {});
                thread.does(self, dice.millis(200, 8_000), Duration::ZERO, Act::Connect {});
                return;
            }
        };
        thread.does(self, pause(dice), jitter(dice), act);
    }

    /// Somebody's second device: it is off when the chat is made, and finds it later.
    fn tablet(&mut self, n: u64, dice: &Dice, user: &str, at: Duration, made: &str, finds: Act) -> Thread {
        let mut tablet = self.thread(n, Device::other(user, "tablet"), at);
        let off = dice.percent(60);
        if off {
            tablet.does(self, Duration::ZERO, Duration::ZERO, Act::Disconnect {});
        }
        tablet.waits_for(&[made.to_owned()]);
        if off {
            tablet.does(self, dice.millis(500, 6_000), Duration::ZERO, Act::Connect {});
        }
        tablet.does(self, pause(dice), Duration::ZERO, finds);
        tablet
    }
}

/// What the people of a chat do, and how often: nobody does all of it.
fn appetite(dice: &Dice) -> Vec<(u64, Deed)> {
    let all = [
        (60, Deed::Say),
        (18, Deed::Read),
        (8, Deed::ReadIndex),
        (4, Deed::Hide),
        (5, Deed::Look),
        (3, Deed::LogIn),
        (7, Deed::OffForAWhile),
    ];
    all.into_iter()
        .enumerate()
        .filter(|(n, _)| *n == 0 || dice.percent(70))
        .map(|(_, choice)| choice)
        .collect()
}

pub(super) fn creates(chat: &str, with: &[&String], group: bool) -> Act {
    Act::Create { chat: chat.to_owned(), with: with.iter().map(|name| (*name).clone()).collect(), group }
}

/// Looks until the conversation is there.
pub(super) fn finds(dice: &Dice, chat: &str, with: &str) -> Act {
    Act::Find {
        chat: chat.to_owned(),
        with: with.to_owned(),
        within: Duration::from_secs(dice.between(4, 20)),
    }
}

fn awaits(dice: &Dice, chat: &str) -> Act {
    Act::AwaitChat { chat: chat.to_owned(), within: Duration::from_secs(dice.between(4, 20)) }
}

/// At once, in a moment, or in some seconds.
pub(super) fn pause(dice: &Dice) -> Duration {
    let most = dice.weighted(&[(35, 0), (40, 300), (25, 3_000)]);
    dice.millis(0, most)
}

fn jitter(dice: &Dice) -> Duration {
    Duration::from_millis(dice.weighted(&[(60, 0), (40, 200)]))
}
