//! Maps, clocks and chance, for one thread: a thread is to the programs what a CPU is.
//!
//! Elements are found by their key's bytes, as the kernel finds them, begin as zeros in arrays, and stay where they are
//! until [`reset`], removed ones too: a program may hold a pointer to one for as long as it runs.

use std::{
    borrow::Borrow,
    cell::RefCell,
    collections::HashMap as StdHashMap,
    marker::PhantomData,
    mem::{align_of, size_of},
    ptr, slice,
};

thread_local! {
    static KERNEL: RefCell<Kernel> = RefCell::default();
}

#[derive(Default)]
struct Kernel {
    /// By the address of the map's definition.
    maps: StdHashMap<usize, StdHashMap<Box<[u8]>, Element>>,
    removed: Vec<Element>,
    /// Insertions, to tell the oldest element.
    age: u64,
    now: u64,
    stack: u64,
    random: u32,
    is_contended: bool,
}

/// A value's memory.
struct Element {
    place: *mut [u64],
    age: u64,
}

impl Element {
    fn zeroed(bytes: usize, age: u64) -> Self {
        let place = Box::into_raw(vec![0; bytes.div_ceil(size_of::<u64>())].into_boxed_slice());
        Self { place, age }
    }
}

impl Drop for Element {
    fn drop(&mut self) {
        // SAFETY: it came from a box, and only this element has it.
        drop(unsafe { Box::from_raw(self.place) });
    }
}

fn with<R>(body: impl FnOnce(&mut Kernel) -> R) -> R {
    KERNEL.with_borrow_mut(body)
}

/// Empties all maps of this thread, and frees their elements: nobody may hold a pointer to one any more.
pub fn reset() {
    with(|kernel| *kernel = Kernel::default());
}

/// Sets both clocks, in nanoseconds.
pub fn set_ns(now: u64) {
    with(|kernel| kernel.now = now);
}

/// Sets the address that stands for the kernel stack.
pub fn set_stack(stack: u64) {
    with(|kernel| kernel.stack = stack);
}

/// Sets what chance gives next.
pub fn set_random(random: u32) {
    with(|kernel| kernel.random = random);
}

/// Whether other CPUs have every place of each LRU table in hand: then such a table takes nothing.
#[cfg(test)]
pub fn set_contended(is_contended: bool) {
    with(|kernel| kernel.is_contended = is_contended);
}

/// `bpf_ktime_get_coarse_ns`.
pub fn coarse_ns() -> u64 {
    with(|kernel| kernel.now)
}

/// `bpf_ktime_get_ns`.
pub fn ns() -> u64 {
    coarse_ns()
}

/// `bpf_get_prandom_u32`.
pub fn random() -> u32 {
    with(|kernel| kernel.random)
}

/// An address on the stack that the program runs on.
pub fn stack() -> u64 {
    with(|kernel| kernel.stack)
}

/// What the definition of a map says. It has a size, so that each static has an address of its own.
struct Definition {
    max_entries: u32,
}

impl Definition {
    fn key(&self) -> usize {
        ptr::from_ref(self).addr()
    }

    fn find(&self, key: &[u8]) -> Option<*mut [u64]> {
        with(|kernel| Some(kernel.maps.get(&self.key())?.get(key)?.place))
    }

    /// An array's element, which is there from the beginning.
    fn index<T>(&self, index: u32) -> Option<*mut T> {
        const { assert!(align_of::<T>() <= align_of::<u64>()) }
        if index >= self.max_entries {
            return None;
        }
        let place = with(|kernel| {
            let elements = kernel.maps.entry(self.key()).or_default();
            let element = elements.entry(index.to_ne_bytes().into());
            element.or_insert_with(|| Element::zeroed(size_of::<T>(), 0)).place
        });
        Some(place.cast())
    }

    /// Puts a value in; `evicts` tells what a full map does.
    fn put<V: Copy>(&self, key: &[u8], value: &V, evicts: bool) -> Result<(), i32> {
        const { assert!(align_of::<V>() <= align_of::<u64>()) }
        with(|kernel| {
            if evicts && kernel.is_contended {
                return Err(-ENOMEM);
            }
            kernel.age += 1;
            let age = kernel.age;
            let elements = kernel.maps.entry(self.key()).or_default();
            if !elements.contains_key(key) && elements.len() >= self.max_entries as usize {
                let oldest = elements.iter().min_by_key(|(_, element)| element.age);
                let oldest = oldest.map(|(key, _)| key.clone()).filter(|_| evicts).ok_or(-E2BIG)?;
                kernel.removed.extend(elements.remove(&oldest));
            }
            let element = elements.entry(key.into());
            let element = element.or_insert_with(|| Element::zeroed(size_of::<V>(), age));
            element.age = age;
            // SAFETY: the element is large enough and aligned, and one thread has it.
            unsafe { element.place.cast::<V>().write(*value) };
            Ok(())
        })
    }

    fn remove(&self, key: &[u8]) -> Result<(), i32> {
        with(|kernel| {
            let element = kernel.maps.entry(self.key()).or_default().remove(key);
            kernel.removed.push(element.ok_or(-ENOENT)?);
            Ok(())
        })
    }

    fn keys(&self) -> Vec<u32> {
        with(|kernel| {
            let elements = kernel.maps.entry(self.key()).or_default();
            let keys = elements.keys().filter_map(|key| key.as_ref().try_into().ok());
            keys.map(u32::from_ne_bytes).collect()
        })
    }

    fn entries<K: Copy, V: Copy>(&self) -> Vec<(K, V)> {
        with(|kernel| {
            let elements = kernel.maps.entry(self.key()).or_default();
            let pairs = elements.iter().map(|(key, element)| {
                // SAFETY: what was put in was a key and a value of these types.
                unsafe {
                    (
                        key.as_ptr().cast::<K>().read_unaligned(),
                        element.place.cast::<V>().read(),
                    )
                }
            });
            pairs.collect()
        })
    }
}

const ENOENT: i32 = 2;
const E2BIG: i32 = 7;
const ENOMEM: i32 = 12;

/// A key as the kernel sees it.
fn bytes_of<K>(key: &K) -> &[u8] {
    // SAFETY: keys have no padding (`assert_no_padding`), so all of their bytes are initialised.
    unsafe { slice::from_raw_parts(ptr::from_ref(key).cast(), size_of::<K>()) }
}

macro_rules! arrays {
    ($($name:ident)+) => {
        $(
            /// As aya's of that name.
            pub struct $name<T> {
                definition: Definition,
                elements: PhantomData<fn() -> T>,
            }

            impl<T> $name<T> {
                /// See there.
                pub const fn with_max_entries(max_entries: u32, _flags: u32) -> Self {
                    Self { definition: Definition { max_entries }, elements: PhantomData }
                }

                /// See there.
                pub fn get(&self, index: u32) -> Option<&T> {
                    // SAFETY: elements stay where they are; all of ours are made of integers, so zeros are one.
                    self.definition.index(index).map(|place| unsafe { &*place })
                }

                /// See there.
                pub fn get_ptr_mut(&self, index: u32) -> Option<*mut T> {
                    self.definition.index(index)
                }

                /// The indexes that were ever asked for, in no order.
                pub fn touched(&self) -> Vec<u32> {
                    self.definition.keys()
                }
            }
        )+
    };
}

arrays!(Array PerCpuArray);

macro_rules! hash_maps {
    ($($name:ident $evicts:literal)+) => {
        $(
            /// As aya's of that name.
            pub struct $name<K, V> {
                definition: Definition,
                elements: PhantomData<fn() -> (K, V)>,
            }

            impl<K: Copy, V: Copy> $name<K, V> {
                /// See there.
                pub const fn with_max_entries(max_entries: u32, _flags: u32) -> Self {
                    Self { definition: Definition { max_entries }, elements: PhantomData }
                }

                /// See there.
                ///
                /// # Safety
                ///
                /// Nobody may write the element while the reference is used.
                pub unsafe fn get(&self, key: impl Borrow<K>) -> Option<&V> {
                    // SAFETY: elements stay where they are.
                    self.get_ptr_mut(key).map(|place| unsafe { &*place })
                }

                /// See there.
                pub fn get_ptr_mut(&self, key: impl Borrow<K>) -> Option<*mut V> {
                    Some(self.definition.find(bytes_of(key.borrow()))?.cast())
                }

                /// See there.
                pub fn insert(&self, key: impl Borrow<K>, value: impl Borrow<V>, _flags: u64) -> Result<(), i32> {
                    self.definition.put(bytes_of(key.borrow()), value.borrow(), $evicts)
                }

                /// See there.
                pub fn remove(&self, key: impl Borrow<K>) -> Result<(), i32> {
                    self.definition.remove(bytes_of(key.borrow()))
                }

                /// All elements, in no order.
                pub fn entries(&self) -> Vec<(K, V)> {
                    self.definition.entries()
                }
            }
        )+
    };
}

hash_maps!(HashMap false LruHashMap true);

/// As aya's of that name. What is submitted stays until it is taken.
pub struct RingBuf {
    definition: Definition,
}

/// Room in a ring buffer.
pub struct RingBufEntry<T> {
    value: Box<T>,
    definition: &'static Definition,
}

impl RingBuf {
    /// See there.
    pub const fn with_byte_size(bytes: u32, _flags: u32) -> Self {
        Self {
            definition: Definition { max_entries: bytes },
        }
    }

    /// See there. `None` if what has been submitted fills it.
    pub fn reserve<T: Copy>(&'static self, _flags: u64) -> Option<RingBufEntry<T>> {
        let held = self.definition.entries::<u64, T>().len();
        // SAFETY: all of ours are made of integers, so zeros are one.
        let value = Box::new(unsafe { core::mem::zeroed() });
        ((held + 1) * size_of::<T>() <= self.definition.max_entries as usize).then_some(RingBufEntry {
            value,
            definition: &self.definition,
        })
    }

    /// Takes all that was submitted, the oldest first.
    pub fn take<T: Copy>(&self) -> Vec<T> {
        let mut entries = self.definition.entries::<u64, T>();
        entries.sort_by_key(|(age, _)| *age);
        with(|kernel| kernel.maps.remove(&self.definition.key()));
        entries.into_iter().map(|(_, value)| value).collect()
    }
}

impl<T: Copy> RingBufEntry<T> {
    /// See there.
    pub fn as_mut_ptr(&mut self) -> *mut T {
        &raw mut *self.value
    }

    /// See there.
    pub fn submit(self, _flags: u64) {
        let age = with(|kernel| kernel.age);
        // The key is the age of the element that comes.
        let done = self.definition.put(&(age + 1).to_ne_bytes(), &*self.value, false);
        debug_assert_eq!(done, Ok(()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static ARRAY: Array<u32> = Array::with_max_entries(2, 0);
    static OTHER: Array<u32> = Array::with_max_entries(2, 0);
    static HASH: HashMap<u32, u64> = HashMap::with_max_entries(2, 0);
    static LRU: LruHashMap<u32, u64> = LruHashMap::with_max_entries(2, 0);
    static RING: RingBuf = RingBuf::with_byte_size(16, 0);

    #[test]
    fn arrays_begin_as_zeros_and_end_at_their_size() {
        reset();
        assert_eq!((ARRAY.get(1), ARRAY.get(2)), (Some(&0), None));
        let place = ARRAY.get_ptr_mut(1).expect("an element");
        // SAFETY: an element of this thread's.
        unsafe { *place = 7 };
        assert_eq!((ARRAY.get(1), OTHER.get(1)), (Some(&7), Some(&0)));
        reset();
        assert_eq!(ARRAY.get(1), Some(&0));
    }

    #[test]
    fn a_full_map_refuses_or_evicts_the_oldest() {
        reset();
        for key in 0..2 {
            assert_eq!((HASH.insert(key, 5, 0), LRU.insert(key, 5, 0)), (Ok(()), Ok(())));
        }
        assert_eq!((HASH.insert(2, 5, 0), LRU.insert(0, 6, 0)), (Err(-E2BIG), Ok(())));
        assert_eq!((HASH.insert(1, 9, 0), LRU.insert(2, 7, 0)), (Ok(()), Ok(())));
        let mut entries = LRU.entries();
        entries.sort_unstable();
        assert_eq!(entries, [(0, 6), (2, 7)]);
        assert_eq!((LRU.remove(0), LRU.remove(0)), (Ok(()), Err(-ENOENT)));
    }

    /// A program may still read what was removed while it ran.
    #[test]
    fn removed_elements_stay_readable() {
        reset();
        HASH.insert(1, 5, 0).expect("room");
        // SAFETY: nobody writes it.
        let held = unsafe { HASH.get(1) }.expect("it is there");
        HASH.remove(1).expect("it is there");
        HASH.insert(1, 6, 0).expect("room");
        assert_eq!(*held, 5);
    }

    #[test]
    fn a_ring_buffer_keeps_order_and_fills() {
        reset();
        for number in 0..3_u64 {
            if let Some(mut place) = RING.reserve::<u64>(0) {
                // SAFETY: room for one.
                unsafe { *place.as_mut_ptr() = number };
                place.submit(0);
            }
        }
        assert_eq!(RING.take::<u64>(), [0, 1]);
        assert_eq!(RING.take::<u64>(), [0_u64; 0]);
    }
}
