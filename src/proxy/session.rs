//! Session ids of foreign MCP servers, which the protocol knew until its version of 2025-11-25, bound to the caller who
//! was given them: a server behind this proxy sees all callers as one, and would let each into the other's session.
//!
//! The client gets the server's id with a code behind it, over caller, server and id, made with the secrets that verify
//! tokens. So nothing is kept, replicas agree, and a session outlives a rotation for as long as the older secret
//! verifies tokens. Without a secret, callers are nobody in particular, and ids pass as they are.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::base::{Principal, Secret};

/// How much of the code is kept, in bytes.
const CODE: usize = 16;

/// The id that the caller is given for the server's.
pub fn bind(secrets: &[Secret], server: &str, caller: &Principal, id: &[u8]) -> Vec<u8> {
    let mut bound = id.to_vec();
    if let Some(secret) = usable(secrets).next() {
        bound.push(b'.');
        let code = mac(secret, server, caller, id).finalize().into_bytes();
        bound.extend_from_slice(URL_SAFE_NO_PAD.encode(&code[..CODE]).as_bytes());
    }
    bound
}

/// The server's id of one that the caller presents; `None` when it was given to another caller, for another server, or
/// by nobody.
pub fn unbind<'a>(secrets: &[Secret], server: &str, caller: &Principal, bound: &'a [u8]) -> Option<&'a [u8]> {
    if usable(secrets).next().is_none() {
        return Some(bound);
    }
    let dot = memchr::memrchr(b'.', bound)?;
    let (id, code) = (&bound[..dot], &bound[dot + 1..]);
    let code = URL_SAFE_NO_PAD.decode(code).ok().filter(|code| code.len() == CODE)?;
    let own = |secret| mac(secret, server, caller, id).verify_truncated_left(&code).is_ok();
    usable(secrets).any(own).then_some(id)
}

/// What an empty secret makes, anybody can make.
fn usable(secrets: &[Secret]) -> impl Iterator<Item = &Secret> {
    secrets.iter().filter(|secret| !secret.is_empty())
}

fn mac(secret: &Secret, server: &str, caller: &Principal, id: &[u8]) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.expose()).expect("HMAC takes keys of every length");
    // No token begins so: what is signed there has no NUL.
    mac.update(b"mcp-session\0");
    for part in [server.as_bytes(), caller.identity().as_bytes()] {
        mac.update(&(part.len() as u64).to_be_bytes());
        mac.update(part);
    }
    mac.update(id);
    mac
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn at(last: u8) -> Principal {
        Principal::anonymous(IpAddr::from([192, 0, 2, last]))
    }

    #[test]
    fn an_id_is_its_callers_at_its_server_alone() {
        let (old, new) = (Secret::new([1; 32]), Secret::new([2; 32]));
        let secrets = [old.clone()];
        for id in [b"abc".as_slice(), b"a.b.c", b"", b"a."] {
            let bound = bind(&secrets, "content", &at(1), id);
            assert_eq!(unbind(&secrets, "content", &at(1), &bound), Some(id));
            assert_eq!(unbind(&[new.clone(), old.clone()], "content", &at(1), &bound), Some(id), "after a rotation");
            assert_eq!(unbind(std::slice::from_ref(&new), "content", &at(1), &bound), None);
            assert_eq!(unbind(&secrets, "content", &at(2), &bound), None);
            assert_eq!(unbind(&secrets, "content2", &at(1), &bound), None);
            for other in
                [id.to_vec(), [b"x", &*bound].concat(), [&*bound, b"x"].concat(), bound[..bound.len() - 4].to_vec()]
            {
                assert_eq!(unbind(&secrets, "content", &at(1), &other), None, "{}", other.escape_ascii());
            }
        }
    }

    #[test]
    fn without_a_secret_ids_pass_and_an_empty_one_is_none() {
        let empty = Secret::new([]);
        for secrets in [&[][..], std::slice::from_ref(&empty)] {
            assert_eq!(bind(secrets, "content", &at(1), b"a.b"), b"a.b");
            assert_eq!(unbind(secrets, "content", &at(1), b"a.b"), Some(b"a.b".as_slice()));
        }
        let forged = [b"abc.".as_slice(), URL_SAFE_NO_PAD.encode(&code(&empty)[..CODE]).as_bytes()].concat();
        assert_eq!(unbind(&[empty, Secret::new([1; 32])], "content", &at(1), &forged), None);
    }

    fn code(secret: &Secret) -> Vec<u8> {
        mac(secret, "content", &at(1), b"abc").finalize().into_bytes().to_vec()
    }
}
