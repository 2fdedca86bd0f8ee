//! Standing questions, one round of them after the other.
//!
//! Comes in: outcomes. Goes out: the question that is to be asked next. It waits for nothing, so that whoever drives it can do other things
//! meanwhile, and it asks no session itself. When a round begins is said by [`crate::watch`]'s turns.

use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};

/// A round: one question after the other, each once the one before has its outcome.
#[derive(Debug)]
pub struct Round<T> {
    questions: usize,
    /// The one that is asked next; `questions` where the round is over.
    next: usize,
    asked: Option<Receiver<T>>,
}

/// What is to be done now.
#[derive(Debug)]
pub enum Step<T> {
    /// Ask this one, and send its outcome there.
    Ask(usize, SyncSender<T>),
    /// This one has its outcome; none where nobody will send it.
    Outcome(usize, Option<T>),
    /// Nothing.
    Wait,
}

impl<T> Round<T> {
    /// No round yet, for so many questions.
    pub fn new(questions: usize) -> Self {
        Self { questions, next: questions, asked: None }
    }

    /// Whether a new round can begin.
    pub fn is_over(&self) -> bool {
        self.asked.is_none() && self.next >= self.questions
    }

    /// Begins one.
    pub fn begin(&mut self) {
        self.next = 0;
    }

    /// What is to be done now.
    pub fn step(&mut self) -> Step<T> {
        if let Some(asked) = &self.asked {
            let outcome = match asked.try_recv() {
                Ok(outcome) => Some(outcome),
                Err(TryRecvError::Empty) => return Step::Wait,
                Err(TryRecvError::Disconnected) => None,
            };
            self.asked = None;
            self.next += 1;
            return Step::Outcome(self.next - 1, outcome);
        }
        if self.is_over() {
            return Step::Wait;
        }
        let (tell, told) = sync_channel(1);
        self.asked = Some(told);
        Step::Ask(self.next, tell)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_of_a_round_follow_each_other() {
        let mut round = Round::new(2);
        assert!(round.is_over() && matches!(round.step(), Step::Wait));
        round.begin();
        let Step::Ask(0, tell) = round.step() else { panic!("{round:?}") };
        assert!(matches!(round.step(), Step::Wait) && !round.is_over());
        tell.send("yes").unwrap();
        assert!(matches!(round.step(), Step::Outcome(0, Some("yes"))));
        let Step::Ask(1, tell) = round.step() else { panic!("{round:?}") };
        drop(tell);
        assert!(matches!(round.step(), Step::Outcome(1, None)) && round.is_over());
        assert!(matches!(round.step(), Step::Wait));
    }
}
