//! Goal: whatever goes wrong while both write to each other for the first time, it ends in one
//! conversation with everything that was accepted (CNV-004). Method: people act, clusters are cut off and
//! restarted, in an order that a seed decides; then everything is healed and looked at.

use fusion_runtime::Entropy;

use super::*;

const SEEDS: u64 = 40;
const STEPS: u64 = 25;

struct Run {
    chat: Chat,
    chance: Entropy,
    cut: Option<&'static str>,
    /// What was accepted of Alice, and of Bob.
    accepted: [Vec<String>; 2],
}

impl Run {
    async fn new(seed: u64) -> Self {
        let chat = Chat::new().await;
        for (at, user) in [("a", &chat.bob), ("b", &chat.alice)] {
            crate::users::resolve(chat.world.cluster(at), &user.user).await.expect("resolved");
        }
        Self { chat, chance: Entropy::from_u64(seed), cut: None, accepted: [Vec::new(), Vec::new()] }
    }

    fn person(&self, number: usize) -> (&UserRef, &UserRef) {
        match number {
            0 => (&self.chat.alice, &self.chat.bob),
            _ => (&self.chat.bob, &self.chat.alice),
        }
    }

    async fn step(&mut self) {
        let number = self.chance.below(2) as usize;
        match self.chance.below(10) {
            0 => self.cut_or_heal().await,
            1 => self.restart().await,
            2..4 => {
                let (alice, bob) = (&self.chat.alice, &self.chat.bob);
                if self.cut.is_none() {
                    let both = tokio::join!(self.chat.create(alice, bob), self.chat.create(bob, alice));
                    made_or_unresolved(&[both.0, both.1]);
                }
            }
            4 => drop(self.create(number).await),
            5 => {
                let wait_ms = self.chance.below(700);
                self.chat.world.clock.sleep(Duration::from_millis(wait_ms)).await;
            }
            _ => self.say(number).await,
        }
    }

    fn is_cut(&self, user: &UserRef) -> bool {
        self.cut == Some(self.chat.home(user))
    }

    /// Whether there is a conversation now.
    async fn create(&self, number: usize) -> bool {
        let (user, other) = self.person(number);
        if self.is_cut(user) {
            return false;
        }
        let answer = self.chat.create(user, other).await;
        made_or_unresolved(std::slice::from_ref(&answer));
        answer.0.is_success()
    }

    /// Says something where the own cluster says, following one redirect as clients do.
    async fn say(&mut self, number: usize) {
        let (user, other) = self.person(number);
        if self.is_cut(user) {
            return;
        }
        let (status, found) = self.chat.look_up(user, other).await;
        if status != StatusCode::OK {
            return;
        }
        let mut url = url_in(&found, "url");
        let text = format!("{} {}", user.user.local_part(), self.accepted[number].len());
        for _ in 0..2 {
            let at = self.chat.world.template.locate(&url).expect("of the federation").cluster;
            if self.cut == Some(at.as_str()) {
                return;
            }
            let act = json!({ "verb": "message", "text": text });
            let (status, headers, body) = self.chat.act(user, &url, &text, act).await;
            match status.as_u16() {
                201 => return self.accepted[number].push(text),
                308 => {
                    let to = headers[header::LOCATION].to_str().expect("a URL");
                    url = to.trim_end_matches("/activities").parse().expect("a URL");
                }
                503 => return,
                _ => panic!("{status} {body}"),
            }
        }
        panic!("more than one hop");
    }

    async fn cut_or_heal(&mut self) {
        match self.cut.take() {
            Some(cut) => self.chat.world.reconnect(cut).await,
            None => {
                let cut = if self.chance.below(2) == 0 { "a" } else { "b" };
                self.chat.world.cut(cut);
                self.cut = Some(cut);
            }
        }
    }

    async fn restart(&mut self) {
        let at = if self.chance.below(2) == 0 { "a" } else { "b" };
        if self.cut.is_none() {
            self.chat.world.restart(at).await;
        }
    }

    async fn judge(mut self) -> bool {
        if self.cut.is_some() {
            self.cut_or_heal().await;
        }
        while !self.create(0).await {
            self.chat.world.clock.sleep(Duration::from_secs(1)).await;
        }
        let winner = self.chat.come_to_rest().await;
        let said = self.chat.texts(&self.chat.alice, &winner).await;
        for (number, accepted) in self.accepted.iter().enumerate() {
            let name = self.person(number).0.user.local_part();
            let of_them: Vec<_> = said.iter().filter(|text| text.starts_with(name)).cloned().collect();
            assert_eq!(of_them, *accepted, "each once, in the author's order");
        }
        let last = json!(said.len().to_string());
        for user in [&self.chat.alice, &self.chat.bob] {
            let has_all = |entries: &[Value]| {
                entries.iter().any(|e| e["url"] == winner.as_str() && e["lastSeq"] == last)
            };
            self.chat.index_until(user, has_all).await;
        }
        let entries =
            self.chat.index(&self.chat.alice).await.len() + self.chat.index(&self.chat.bob).await.len();
        for cluster in ["a", "b"] {
            self.chat.world.cluster(cluster).host.tasks.abort_all();
        }
        // The loser stays in the index of whoever made it.
        entries == 3
    }
}

/// A restarted cluster has forgotten where others are, and has to ask.
fn made_or_unresolved(answers: &[(StatusCode, Value)]) {
    for (status, body) in answers {
        assert!(status.is_success() || body["code"] == "resolution-incomplete", "{body}");
    }
}

#[tokio::test(start_paused = true)]
async fn whatever_goes_wrong_one_conversation_has_everything() {
    let mut races = 0;
    for seed in 0..SEEDS {
        let mut run = Run::new(seed).await;
        for _ in 0..STEPS {
            run.step().await;
        }
        races += u64::from(run.judge().await);
    }
    assert!(races > 5, "the race was really run: {races} times");
}
