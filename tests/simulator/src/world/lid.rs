//! The two ids of a person: phone number and hidden id, and the chats that move from one to the other.

use serde_json::{Value, json};

use super::{Account, Refusal, State, digits};

impl State {
    /// A private chat by the id under which a viewer's pages keep it; other chats as they are.
    pub(super) fn seen_by(&mut self, viewer: &str, chat: &str) -> String {
        let Ok(peer) = self.account(chat) else { return chat.to_owned() };
        let (phone, wid, lid) = (peer.phone.clone(), peer.wid(), peer.lid_wid());
        match self.accounts.get(viewer) {
            Some(viewer) if viewer.lid_migrated || viewer.lid_chats.contains(&phone) => lid,
            _ => wid,
        }
    }

    /// The chats that an account keeps under hidden ids while the others are under phone numbers.
    pub(super) fn lid_chats(&self, account: &Account) -> Vec<Value> {
        account
            .lid_chats
            .iter()
            .filter_map(|phone| self.accounts.get(phone))
            .map(|a| json!({"phone": a.wid(), "lid": a.lid_wid()}))
            .collect()
    }

    /// One chat goes to the hidden id, or back. `rekey`: the stored messages follow. Answers the chat's new id.
    pub fn flip(&mut self, phone: &str, peer: &str, lid: bool, rekey: bool) -> Result<String, Refusal> {
        let (peer, wid, hidden) = {
            let peer = self.account(peer)?;
            (peer.phone.clone(), peer.wid(), peer.lid_wid())
        };
        let account = self.account(phone)?;
        let phone = account.phone.clone();
        if lid {
            account.lid_chats.insert(peer);
        } else {
            account.lid_chats.remove(&peer);
        }
        self.fan_out(&phone, &json!({"ev": "flip", "phone": wid, "lid": hidden, "toLid": lid, "rekey": rekey}), None);
        Ok(if lid { hidden } else { wid })
    }

    /// All private chats of an account go to hidden ids, or back.
    pub fn migrate(&mut self, phone: &str, migrated: bool, rekey: bool) -> Result<(), Refusal> {
        let account = self.account(phone)?;
        account.lid_migrated = migrated;
        let phone = account.phone.clone();
        self.fan_out(&phone, &json!({"ev": "lidmigrated", "migrated": migrated, "rekey": rekey}), None);
        Ok(())
    }

    /// A phone number gets another hidden id, as when another person registers it. Answers the id before and the one now.
    pub fn move_lid(&mut self, phone: &str, lid: Option<&str>) -> Result<(String, String), Refusal> {
        let fresh = format!("2{:0>14}", self.number());
        let account = self.account(phone)?;
        let before = account.lid_wid();
        account.lid = lid.map_or(fresh, digits);
        let (phone, now) = (account.phone.clone(), account.lid_wid());
        let others: Vec<String> = self.accounts.keys().filter(|other| **other != phone).cloned().collect();
        for other in others {
            self.announce(&other, &phone);
        }
        Ok((before, now))
    }

    /// Tells the pages of an account what they are to know of another.
    pub(super) fn announce(&mut self, viewer: &str, other: &str) {
        let (Some(account), Some(other)) = (self.accounts.get(viewer), self.accounts.get(other)) else { return };
        let frame = json!({"ev": "contact", "contact": account.contact(other)});
        self.fan_out(viewer, &frame, None);
    }
}
