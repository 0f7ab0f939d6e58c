//! A list that mostly has one element, and then costs no allocation.

/// Zero, one or more values in the order of their insertion.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Few<T> {
    #[default]
    None,
    One(T),
    Many(Vec<T>),
}

impl<T> Few<T> {
    pub fn as_slice(&self) -> &[T] {
        match self {
            Self::None => &[],
            Self::One(value) => std::slice::from_ref(value),
            Self::Many(values) => values,
        }
    }

    pub fn iter(&self) -> std::slice::Iter<'_, T> {
        self.as_slice().iter()
    }

    pub fn is_empty(&self) -> bool {
        self.as_slice().is_empty()
    }

    pub fn len(&self) -> usize {
        self.as_slice().len()
    }

    pub fn find_mut(&mut self, predicate: impl Fn(&T) -> bool) -> Option<&mut T> {
        match self {
            Self::None => None,
            Self::One(value) => predicate(value).then_some(value),
            Self::Many(values) => values.iter_mut().find(|v| predicate(v)),
        }
    }

    pub fn push(&mut self, value: T) {
        *self = match std::mem::take(self) {
            Self::None => Self::One(value),
            Self::One(first) => Self::Many(vec![first, value]),
            Self::Many(mut values) => {
                values.push(value);
                Self::Many(values)
            }
        };
    }

    /// Removes the first value that the predicate accepts.
    pub fn remove(&mut self, predicate: impl Fn(&T) -> bool) -> Option<T> {
        match std::mem::take(self) {
            Self::None => None,
            Self::One(value) => {
                if predicate(&value) {
                    Some(value)
                } else {
                    *self = Self::One(value);
                    None
                }
            }
            Self::Many(mut values) => {
                let removed = values
                    .iter()
                    .position(predicate)
                    .map(|i| values.swap_remove(i));
                *self = match values.len() {
                    0 => Self::None,
                    1 => values.pop().map_or(Self::None, Self::One),
                    _ => Self::Many(values),
                };
                removed
            }
        }
    }
}

impl<'a, T> IntoIterator for &'a Few<T> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}
