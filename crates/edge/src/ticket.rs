//! The `pid` of Socket.IO's connection state recovery: the session's id with a MAC over id, namespace and user.
//!
//! It is the same at every reconnect, since the stock client compares it, and it recovers nothing for another user.

pub(crate) mod key;

use carillon_protocol::ids::Sid;
use hmac::{Hmac, Mac};
use sha2::Sha256;

/// Characters of the MAC that the ticket carries.
const MAC_LEN: usize = 24;

/// Returns the ticket of a session.
pub(crate) fn issue(key: &[u8], sid: Sid, namespace: &str, user: Option<&str>) -> String {
    format!("{sid}{}", mac(key, sid, namespace, user))
}

/// Returns the session of a ticket that was issued to this user in this namespace.
pub(crate) fn redeem(key: &[u8], ticket: &str, namespace: &str, user: Option<&str>) -> Option<Sid> {
    use subtle::ConstantTimeEq;

    let (sid, shown) = ticket.split_at_checked(Sid::LEN)?;
    let sid: Sid = sid.parse().ok()?;
    let expected = mac(key, sid, namespace, user);
    bool::from(expected.as_bytes().ct_eq(shown.as_bytes())).then_some(sid)
}

fn mac(key: &[u8], sid: Sid, namespace: &str, user: Option<&str>) -> String {
    use base64::Engine;

    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a MAC takes a key of any length");
    // Lengths keep the parts apart; an anonymous user is none of any name.
    for part in [Some(sid.as_str()), Some(namespace), user] {
        match part {
            Some(part) => {
                mac.update(&(part.len() as u64 + 1).to_be_bytes());
                mac.update(part.as_bytes());
            }
            None => mac.update(&0u64.to_be_bytes()),
        }
    }
    let mut text = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes());
    text.truncate(MAC_LEN);
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_ticket_is_redeemed_as_it_was_issued_and_no_other_text_is(
            random: [u8; 20], namespace in "/[a-z]{0,8}", user in proptest::option::of("\\PC{0,12}"),
            at in 0..44usize, other in "\\PC", text in "\\PC{0,60}",
        ) {
            let sid = Sid::from_random(random);
            let user = user.as_deref();
            let ticket = issue(b"k", sid, &namespace, user);
            prop_assert_eq!(redeem(b"k", &ticket, &namespace, user), Some(sid));
            let mut changed: Vec<char> = ticket.chars().collect();
            changed[at] = other.chars().next().unwrap_or('A');
            let changed: String = changed.into_iter().collect();
            prop_assert_eq!(redeem(b"k", &changed, &namespace, user).is_some(), changed == ticket);
            prop_assert_eq!(redeem(b"k", &text, &namespace, user), None);
        }
    }

    #[test]
    fn a_ticket_is_for_one_session_namespace_and_user() {
        let sid = Sid::from_random([5; 20]);
        let ticket = issue(b"k", sid, "/", Some("42"));
        assert_eq!(redeem(b"k", &ticket, "/", Some("42")), Some(sid));
        assert_eq!(redeem(b"k", &ticket, "/", Some("43")), None);
        assert_eq!(redeem(b"k", &ticket, "/", None), None);
        assert_eq!(redeem(b"k", &ticket, "/x", Some("42")), None);
        assert_eq!(redeem(b"other", &ticket, "/", Some("42")), None);
        for bad in ["", "short", &"é".repeat(30), &ticket[..30]] {
            assert_eq!(redeem(b"k", bad, "/", Some("42")), None);
        }
    }
}
