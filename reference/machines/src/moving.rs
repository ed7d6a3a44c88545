//! The move of a user from one cluster to another, with one commit point (MAP-007).
//!
//! Two small machines. An [`Origin`] is what the old cluster holds of the record, a [`Destination`] what the
//! new one has decided. Both are durable; what travels between them may be lost, doubled, late and out of
//! order, and a crash is nothing but a loss. The destination's decision about an epoch is the commit, and it
//! decides each epoch once: the origin does not end its fence before it knows.
//!
//! ```text
//! origin        ACTIVE(e) --order--> FENCED(e, to) --committed--> GONE(e, to)
//!                                         |  --refused--> ACTIVE(e+1)
//! destination   undecided(e+1) --commit--> committed: ACTIVE(e+1)
//!                              --withdraw--> refused, for ever
//! ```
//!
//! Not here: what is carried from one to the other, and who may order a move (`cluster/src/moves`).

use fusion_protocol::{ClusterName, Count};
use serde::{Deserialize, Serialize};

/// What the old cluster holds of a user's record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "state")]
pub enum Origin {
    /// It serves the user.
    Active {
        /// The record's epoch.
        epoch: Count,
    },
    /// It neither serves nor writes: what it holds is being carried.
    Fenced {
        /// The epoch until which it has served.
        epoch: Count,
        /// Where the user goes.
        to: ClusterName,
        /// Whether the move has been called off: the destination is to refuse, unless it has committed.
        withdrawn: bool,
    },
    /// The user has gone.
    Gone {
        /// The epoch until which it has served.
        epoch: Count,
        /// Where the user is, or was after leaving.
        to: ClusterName,
    },
}

/// What happens to a record at the old cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OriginEvent {
    /// Somebody with the right orders the move.
    Order {
        /// Where to.
        to: ClusterName,
    },
    /// Somebody with the right calls it off.
    CallOff,
    /// The destination says what it has decided of an epoch, perhaps late, perhaps again.
    Decided {
        /// Of which epoch.
        epoch: Count,
        /// What.
        decision: Decision,
    },
}

/// What the destination has decided of an epoch, for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Decision {
    /// It serves the user from that epoch on.
    Committed,
    /// It will never take that epoch.
    Refused,
}

/// Why an event does not apply; nothing changes then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OriginRefusal {
    /// Another move is under way.
    #[error("the user is being moved to another cluster")]
    Busy,
    /// The user is not here any more.
    #[error("the user has gone")]
    Gone,
    /// There is no move to call off.
    #[error("the user is not being moved")]
    NotMoving,
}

/// What the old cluster asks of the new one, again and again until it is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asks {
    /// To take everything over, as this epoch.
    Commit {
        /// Whom.
        to: ClusterName,
        /// Which epoch.
        epoch: Count,
    },
    /// To refuse this epoch for ever, if it has not committed it.
    Withdraw {
        /// Whom.
        to: ClusterName,
        /// Which epoch.
        epoch: Count,
    },
}

/// What the new cluster has decided about one person. It outlives the user's record there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Destination {
    /// The highest epoch that it has committed; 0: none.
    pub committed: Count,
    /// The highest epoch that it has refused; 0: none.
    pub refused: Count,
}

/// What the new cluster does about a request to commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is decided already: only the answer is given again.
    Decided(Decision),
    /// Not everything has arrived: it stays undecided.
    Incomplete,
    /// The user is taken over now, in one transaction with this new state: the commit.
    Commit(Destination),
}

impl Origin {
    /// The record after `event`.
    ///
    /// # Errors
    /// See [`OriginRefusal`].
    pub fn step(&self, event: &OriginEvent) -> Result<Self, OriginRefusal> {
        match (self, event) {
            (Self::Active { epoch }, OriginEvent::Order { to }) => {
                Ok(Self::Fenced { epoch: *epoch, to: to.clone(), withdrawn: false })
            }
            (Self::Fenced { to: under_way, withdrawn: false, .. }, OriginEvent::Order { to })
                if under_way == to =>
            {
                Ok(self.clone())
            }
            (Self::Gone { to: gone_to, .. }, OriginEvent::Order { to }) if gone_to == to => Ok(self.clone()),
            (Self::Fenced { .. }, OriginEvent::Order { .. }) => Err(OriginRefusal::Busy),
            (Self::Gone { .. }, OriginEvent::Order { .. } | OriginEvent::CallOff) => Err(OriginRefusal::Gone),
            (Self::Active { .. }, OriginEvent::CallOff) => Err(OriginRefusal::NotMoving),
            (Self::Fenced { epoch, to, .. }, OriginEvent::CallOff) => {
                Ok(Self::Fenced { epoch: *epoch, to: to.clone(), withdrawn: true })
            }
            (Self::Fenced { epoch, to, .. }, OriginEvent::Decided { epoch: decided, decision })
                if *decided == epoch.next() =>
            {
                Ok(match decision {
                    Decision::Committed => Self::Gone { epoch: *epoch, to: to.clone() },
                    // The refused epoch is used up: the next move is another one.
                    Decision::Refused => Self::Active { epoch: epoch.next() },
                })
            }
            // Late, or of an earlier move.
            (_, OriginEvent::Decided { .. }) => Ok(self.clone()),
        }
    }

    /// What is to be asked of the destination now.
    #[must_use]
    pub fn asks(&self) -> Option<Asks> {
        match self {
            Self::Fenced { epoch, to, withdrawn: false } => {
                Some(Asks::Commit { to: to.clone(), epoch: epoch.next() })
            }
            Self::Fenced { epoch, to, withdrawn: true } => {
                Some(Asks::Withdraw { to: to.clone(), epoch: epoch.next() })
            }
            Self::Active { .. } | Self::Gone { .. } => None,
        }
    }

    /// Whether this cluster serves the user.
    #[must_use]
    pub fn serves(&self) -> bool {
        matches!(self, Self::Active { .. })
    }
}

impl Destination {
    /// What to do about a request to commit `epoch`; `complete` says that everything has arrived.
    #[must_use]
    pub fn commit(self, epoch: Count, complete: bool) -> Verdict {
        match self.decided(epoch) {
            Some(decision) => Verdict::Decided(decision),
            None if !complete => Verdict::Incomplete,
            None => Verdict::Commit(Self { committed: epoch, ..self }),
        }
    }

    /// What it has decided after a request to refuse `epoch`, and its state from now on, which must be
    /// durable before the decision is told.
    #[must_use]
    pub fn withdraw(self, epoch: Count) -> (Self, Decision) {
        match self.decided(epoch) {
            Some(decision) => (self, decision),
            None => (Self { refused: epoch, ..self }, Decision::Refused),
        }
    }

    /// What it has decided of `epoch`.
    ///
    /// Epochs follow one another: there is none after `epoch` before somebody knows what became of it. So
    /// whoever still asks for an epoch below a committed one asks for one that was committed here, too,
    /// unless it is the last that was refused.
    #[must_use]
    pub fn decided(self, epoch: Count) -> Option<Decision> {
        if epoch == self.refused {
            return Some(Decision::Refused);
        }
        if epoch <= self.committed {
            return Some(Decision::Committed);
        }
        (epoch < self.refused).then_some(Decision::Refused)
    }
}
