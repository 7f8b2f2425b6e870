//! One shape for verdicts that are numbered, counted and explained.

/// Makes an enumeration from lines of number, variant, name and explanation.
#[macro_export]
macro_rules! verdicts {
    ($(#[$about:meta])+ $enumeration:ident $($number:literal $variant:ident $name:literal $text:literal;)+) => {
        $(#[$about])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum $enumeration {
            $(#[doc = $text] $variant = $number,)+
        }

        impl $enumeration {
            /// All of them, by number.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// Its index in the map.
            #[inline(always)]
            pub const fn number(self) -> u32 {
                self as u32
            }

            /// Its name in JSON and in metrics.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }

            /// One line of explanation.
            pub const fn text(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)+
                }
            }

            /// The verdict of that number.
            #[inline(always)]
            pub const fn of(number: u32) -> Option<Self> {
                match number {
                    $($number => Some(Self::$variant),)+
                    _ => None,
                }
            }
        }
    };
}

/// Asserts that numbers rise from above the first one, fit a map of so many entries, and are found again.
#[cfg(test)]
macro_rules! assert_fit_and_rise {
    ($enumeration:ident, $above:expr, $entries:expr) => {
        let mut last = $above;
        for verdict in $enumeration::ALL {
            let number = verdict.number();
            assert!(
                number > last && number < $entries && $enumeration::of(number) == Some(*verdict),
                "{verdict:?}"
            );
            last = number;
        }
        assert_eq!($enumeration::of($above), None);
    };
}
#[cfg(test)]
pub(crate) use assert_fit_and_rise;
