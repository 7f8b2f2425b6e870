//! Lengths that the verifier believes.

/// A length of 1 to `MOST` bytes, a power of two, as it is; others are made such. The compiler would check one copy of the
/// number and pass another, for which the verifier then knows no bounds.
#[inline(always)]
pub fn bounded<const MOST: usize>(length: u32) -> u32 {
    let mut length = u64::from(length);
    // SAFETY: arithmetic on a register.
    unsafe {
        core::arch::asm!(
            "{length} += -1",
            "{length} &= {mask}",
            "{length} += 1",
            length = inout(reg) length,
            mask = const MOST - 1,
            options(pure, nomem, nostack),
        );
    }
    length as u32
}

/// A length of 1 to `MOST` bytes as it is, and `MOST` for others. In steps that the compiler does not see through: from a
/// comparison with 0, verifiers before Linux 6.8 do not learn that a number is 1 or more.
#[inline(always)]
pub fn clamped<const MOST: u32>(length: u32) -> u32 {
    let most_but_one = plus::<-1>(length.into()).min(u64::from(MOST - 1));
    plus::<1>(most_but_one) as u32
}

/// The sum, which the compiler knows nothing of.
#[inline(always)]
fn plus<const NUMBER: i32>(mut to: u64) -> u64 {
    // SAFETY: arithmetic on a register.
    unsafe {
        core::arch::asm!("{to} += {number}", to = inout(reg) to, number = const NUMBER, options(pure, nomem, nostack));
    }
    to
}
