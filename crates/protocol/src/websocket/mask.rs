/// Takes the mask off a payload that starts at the mask's first byte.
pub(super) fn unmask(payload: &mut [u8], key: [u8; 4]) {
    let [a, b, c, d] = key;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, rest) = payload.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(key.into_iter().cycle()) {
        *byte ^= mask;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn each_byte_meets_its_mask(payload: Vec<u8>, key: [u8; 4]) {
            let mut unmasked = payload.clone();
            unmask(&mut unmasked, key);
            for (index, byte) in payload.iter().enumerate() {
                prop_assert_eq!(unmasked[index], byte ^ key[index % 4]);
            }
        }
    }
}
