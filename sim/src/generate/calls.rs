//! Calls in a chat: one calls, or several at once; the others answer, decline, miss it or come late; they talk
//! and leave, or their battery is empty.

use std::time::Duration;

use super::chats::pause;
use super::dice::Dice;
use super::script::{Script, Thread};
use crate::scenario::Act;

/// What somebody does when a call is made.
#[derive(Clone, Copy)]
enum Way {
    Answers,
    Declines,
    Misses,
    /// Calls at the same time (LOC-003).
    CallsToo,
    /// Joins a call that has begun.
    ComesLate,
}

const WAYS: [(u64, Way); 5] =
    [(45, Way::Answers), (12, Way::Declines), (10, Way::Misses), (20, Way::CallsToo), (13, Way::ComesLate)];

/// How somebody's part in a call ends.
#[derive(Clone, Copy)]
enum End {
    HangsUp,
    Vanishes,
    HangsUpAndCallsAgain,
}

const ENDS: [(u64, End); 3] = [(75, End::HangsUp), (15, End::Vanishes), (10, End::HangsUpAndCallsAgain)];

impl Script {
    /// A call among those whose devices are in no other chat with calls.
    pub(super) fn call(&mut self, dice: &Dice, chat: &str, threads: &mut [Thread]) {
        let mut free: Vec<&mut Thread> = Vec::new();
        for thread in threads {
            let of = self.callers.entry(thread.device.clone()).or_insert_with(|| chat.to_owned());
            if of == chat {
                free.push(thread);
            }
        }
        if free.len() < 2 {
            return;
        }
        let at = dice.between(0, free.len() as u64 - 1) as usize;
        let caller = free.swap_remove(at);
        let (before, delay) = (caller.last(), pause(dice));
        let rang = caller.does(self, delay, Duration::ZERO, joins(chat));
        self.part(&dice.stream("caller"), chat, caller);
        for thread in free {
            let dice = dice.stream(&thread.device.user);
            let way = dice.weighted(&WAYS);
            match way {
                Way::Misses => continue,
                Way::Answers => drop(thread.does(self, pause(&dice), Duration::ZERO, answers(&dice, chat))),
                Way::Declines => {
                    let (chat, within) = (chat.to_owned(), within(&dice));
                    thread.does(self, pause(&dice), Duration::ZERO, Act::Decline { chat, within });
                    continue;
                }
                Way::CallsToo => {
                    thread.waits_for(&before);
                    let apart = Duration::from_millis(dice.few(0, 200));
                    thread.does(self, delay + apart, Duration::ZERO, joins(chat));
                }
                Way::ComesLate => {
                    thread.waits_for(std::slice::from_ref(&rang));
                    thread.does(self, dice.millis(300, 6_000), Duration::ZERO, joins(chat));
                }
            }
            self.part(&dice, chat, thread);
        }
    }

    /// What somebody in a call does until it is over.
    fn part(&mut self, dice: &Dice, chat: &str, thread: &mut Thread) {
        let chat = || chat.to_owned();
        if dice.percent(60) {
            // Some talk for so long that a relay may die in the meantime (MED-004).
            let (low, high) = dice.weighted(&[(80, (10, 120)), (20, (200, 900))]);
            let talk = Act::Talk { chat: chat(), packets: dice.few(low, high) };
            thread.does(self, pause(dice), Duration::ZERO, talk);
        }
        if dice.percent(30) {
            thread.does(self, pause(dice), Duration::ZERO, Act::Look { chat: chat() });
        }
        if dice.percent(10) {
            thread.does(self, pause(dice), Duration::ZERO, Act::Disconnect {});
            thread.does(self, dice.millis(500, 10_000), Duration::ZERO, Act::Connect {});
        }
        let after = dice.millis(100, 6_000);
        match dice.weighted(&ENDS) {
            End::HangsUp => drop(thread.does(self, after, Duration::ZERO, Act::HangUp { chat: chat() })),
            End::HangsUpAndCallsAgain => {
                thread.does(self, after, Duration::ZERO, Act::HangUp { chat: chat() });
                thread.does(self, pause(dice), Duration::ZERO, joins(&chat()));
                thread.does(self, dice.millis(100, 4_000), Duration::ZERO, Act::HangUp { chat: chat() });
            }
            End::Vanishes => {
                thread.does(self, after, Duration::ZERO, Act::Vanish {});
                thread.does(self, dice.millis(500, 60_000), Duration::ZERO, Act::Connect {});
            }
        }
    }
}

fn joins(chat: &str) -> Act {
    Act::Call { chat: chat.to_owned() }
}

fn answers(dice: &Dice, chat: &str) -> Act {
    Act::Answer { chat: chat.to_owned(), within: within(dice) }
}

fn within(dice: &Dice) -> Duration {
    Duration::from_secs(dice.between(5, 25))
}
