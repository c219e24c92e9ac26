//! What names of one chat mean, given what is known of each: pure.

use contract::{ChatId, Jid, Server};

/// A name that is known, and the chat that has it.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub alias: String,
    pub chat: ChatId,
    /// The chat's LID.
    pub lid: Option<String>,
    /// The chat's phone digits.
    pub phone: Option<String>,
    /// The chat's LID, which is kept as a hash of a person who was erased, is not the one that is told.
    pub of_another: bool,
    /// No LID of it is known, nor was one.
    pub of_nobody: bool,
}

/// The next step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Plan {
    /// Nothing is to be written.
    Use(ChatId),
    /// Nobody has met any of them.
    Make,
    /// The chat gets the names that it lacks.
    Learn(ChatId),
    /// The chat of a person who was erased remembers their LID as a hash.
    Veil(ChatId),
    /// Two chats are one person: the older goes on.
    Merge { into: ChatId, from: ChatId },
    /// The number has left the chat that had it: a LID is a person, a number is lent. `to`: the chat of the LID, where there is one.
    Part { from: ChatId, to: Option<ChatId> },
}

pub(super) fn plan(names: &[Jid], known: &[Known]) -> Plan {
    let find = |name: Option<&Jid>| {
        let alias = name?.to_string();
        known.iter().find(|k| k.alias == alias)
    };
    let lid = names.iter().find(|j| j.server() == Server::Lid);
    let phone = names.iter().find(|j| j.server() == Server::Phone);
    let other = names.iter().find(|j| !matches!(j.server(), Server::Lid | Server::Phone));
    let complete = |chat: &Known| {
        let lid_fits = lid.is_none_or(|l| chat.lid.as_deref() == Some(&l.to_string()));
        let phone_fits = phone.and_then(Jid::phone).is_none_or(|p| chat.phone.as_deref() == Some(p));
        lid_fits && phone_fits && names.iter().all(|n| find(Some(n)).is_some_and(|k| k.chat == chat.chat))
    };
    let settle = |chat: &Known| if complete(chat) { Plan::Use(chat.chat) } else { Plan::Learn(chat.chat) };
    match (find(lid), find(phone)) {
        (Some(person), Some(number)) if person.chat == number.chat => settle(person),
        (Some(person), Some(number)) if number.of_another => Plan::Part { from: number.chat, to: Some(person.chat) },
        (Some(person), Some(number)) => Plan::Merge { into: person.chat.min(number.chat), from: person.chat.max(number.chat) },
        (Some(person), None) => settle(person),
        (None, Some(number)) if number.of_another => Plan::Part { from: number.chat, to: None },
        (None, Some(number)) => settle(number),
        (None, None) => find(other).map_or(Plan::Make, settle),
    }
}

/// The same where the names are those of a person who was erased: none is written down.
pub(super) fn veiled(names: &[Jid], known: &[Known]) -> Plan {
    let lid = names.iter().find(|j| j.server() == Server::Lid).map(ToString::to_string);
    let Some(chat) = known.iter().find(|k| Some(&k.alias) == lid.as_ref()).or_else(|| known.first()) else { return Plan::Make };
    if chat.of_nobody && lid.is_some() { Plan::Veil(chat.chat) } else { Plan::Use(chat.chat) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LID: &str = "100@lid";
    const OTHER_LID: &str = "200@lid";
    const PHONE: &str = "5511999990000@c.us";

    fn names(texts: &[&str]) -> Vec<Jid> {
        texts.iter().map(|t| t.parse().unwrap()).collect()
    }
    fn known(alias: &str, chat: ChatId, lid: Option<&str>, phone: bool) -> Known {
        let of_another = lid.is_some_and(|lid| lid != LID);
        Known {
            alias: alias.into(),
            chat,
            lid: lid.map(Into::into),
            phone: phone.then(|| "5511999990000".into()),
            of_another,
            of_nobody: lid.is_none(),
        }
    }

    #[test]
    fn every_pair_of_what_is_known_leads_to_one_step() {
        let (old, new) = (ChatId::new(), ChatId::new());
        let both = names(&[LID, PHONE]);
        let cases = [
            ("nothing is known", vec![], Plan::Make),
            ("the LID is", vec![known(LID, old, Some(LID), false)], Plan::Learn(old)),
            ("the number is, without a LID", vec![known(PHONE, old, None, true)], Plan::Learn(old)),
            ("the number is, with another LID", vec![known(PHONE, old, Some(OTHER_LID), true)], Plan::Part { from: old, to: None }),
            ("both are, as one", vec![known(LID, old, Some(LID), true), known(PHONE, old, Some(LID), true)], Plan::Use(old)),
            (
                "both are, as one that lacks its number",
                vec![known(LID, old, Some(LID), false), known(PHONE, old, Some(LID), false)],
                Plan::Learn(old),
            ),
            (
                "both are, as two of which the number's is older",
                vec![known(LID, new, Some(LID), false), known(PHONE, old, None, true)],
                Plan::Merge { into: old, from: new },
            ),
            (
                "both are, as two of which the LID's is older",
                vec![known(LID, old, Some(LID), false), known(PHONE, new, None, true)],
                Plan::Merge { into: old, from: new },
            ),
            (
                "both are, and the number belongs to another LID",
                vec![known(LID, new, Some(LID), false), known(PHONE, old, Some(OTHER_LID), true)],
                Plan::Part { from: old, to: Some(new) },
            ),
        ];
        for (case, known, expected) in cases {
            assert_eq!(plan(&both, &known), expected, "{case}");
            let swapped: Vec<Known> = known.into_iter().rev().collect();
            assert_eq!(plan(&names(&[PHONE, LID]), &swapped), expected, "{case}, told the other way round");
        }
    }

    #[test]
    fn of_names_of_an_erased_person_the_lid_says_who_it_is_and_is_remembered() {
        let (old, new) = (ChatId::new(), ChatId::new());
        let both = names(&[PHONE, LID]);
        assert_eq!(veiled(&both, &[known(PHONE, old, None, false), known(LID, new, Some(LID), false)]), Plan::Use(new));
        assert_eq!(veiled(&both, &[known(PHONE, old, None, false)]), Plan::Veil(old));
        assert_eq!(veiled(&names(&[PHONE]), &[known(PHONE, old, None, false)]), Plan::Use(old));
        assert_eq!(veiled(&both, &[]), Plan::Make);
    }

    #[test]
    fn a_single_name_proves_nothing_about_others() {
        let chat = ChatId::new();
        assert_eq!(plan(&names(&[PHONE]), &[known(PHONE, chat, Some(LID), true)]), Plan::Use(chat));
        assert_eq!(plan(&names(&[LID]), &[known(LID, chat, Some(LID), true)]), Plan::Use(chat));
        assert_eq!(plan(&names(&["12036304@g.us"]), &[known("12036304@g.us", chat, None, false)]), Plan::Use(chat));
        assert_eq!(plan(&names(&["12036304@g.us"]), &[]), Plan::Make);
    }
}
