//! What is found without looking at every object: the members of a group, and an account's objects
//! in the order of their creation. It follows from the objects and is not stored.

use time::{OffsetDateTime, PrimitiveDateTime};
use uuid::Uuid;

use super::{Caller, Certificate, DesiredState, Instance, ServiceGroup, SharedMap};

/// A place in the listing of an account's objects: account, time of creation, identity.
pub type Place = (Uuid, OffsetDateTime, Uuid);

/// Every place of a caller's objects.
pub fn all_of(caller: Caller) -> [Place; 2] {
    let (first, last) = (PrimitiveDateTime::MIN, PrimitiveDateTime::MAX);
    [
        (caller.account, first.assume_utc(), Uuid::nil()),
        (caller.account, last.assume_utc(), Uuid::max()),
    ]
}

/// The index of a [`DesiredState`].
#[derive(Clone, Debug, Default)]
pub struct Index {
    /// (group, instance).
    members: SharedMap<(Uuid, Uuid), ()>,
    groups: SharedMap<Place, ()>,
    instances: SharedMap<Place, ()>,
    /// Certificates by what they are for.
    certificates: SharedMap<NamedCertificate, ()>,
}

/// Account, name that a certificate is for, and what makes it better than others for that name: the
/// one that lasts longest, so that a replacement wins before the old one is deleted.
type NamedCertificate = (Uuid, String, OffsetDateTime, OffsetDateTime, Uuid);

impl Certificate {
    fn places(&self) -> impl Iterator<Item = NamedCertificate> {
        let (account, uuid) = (self.account, self.uuid);
        let (end, created_at) = (self.not_after, self.created_at);
        let names = self.names.iter().cloned();
        names.map(move |name| (account, name, end, created_at, uuid))
    }
}

/// Two states are equal when their objects are.
impl PartialEq for Index {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Index {}

impl ServiceGroup {
    /// Where it is in a listing.
    pub const fn place(&self) -> Place {
        (self.account, self.created_at, self.uuid)
    }
}

impl Instance {
    /// Where it is in a listing.
    pub const fn place(&self) -> Place {
        (self.account, self.created_at, self.uuid)
    }

    /// What reads a list makes room for four: many thousands of instances have one address each.
    pub(super) fn pack(&mut self) {
        self.addresses.shrink_to_fit();
    }
}

impl DesiredState {
    /// Makes what follows from the objects, as adding them one by one would.
    pub(super) fn make_index(&mut self) {
        let (groups, instances) = (self.service_groups.clone(), self.instances.clone());
        let member = |instance: &Instance| Some(((instance.service_group?, instance.uuid), ()));
        let certificates = self.certificates.values();
        self.index = Index {
            members: instances.values().filter_map(member).collect(),
            groups: groups.values().map(|group| (group.place(), ())).collect(),
            instances: instances.values().map(|it| (it.place(), ())).collect(),
            certificates: certificates
                .flat_map(Certificate::places)
                .map(|place| (place, ()))
                .collect(),
        };
        self.usage = SharedMap::new();
        for group in groups.values() {
            self.count_group(None, Some(group));
        }
        for instance in instances.values() {
            self.count_instance(None, Some(instance));
        }
    }

    /// Gives back the memory that reading everything left unused.
    pub(super) fn compact(&mut self) {
        self.service_groups.compact();
        self.instances.compact();
        self.claims.compact();
        self.revisions.compact();
        let Index {
            members,
            groups,
            instances,
            certificates,
        } = &mut self.index;
        certificates.compact();
        members.compact();
        groups.compact();
        instances.compact();
    }

    /// Adds or replaces a service group.
    pub fn put_group(&mut self, group: ServiceGroup) {
        let place = group.place();
        let former = self.service_groups.get(&group.uuid).cloned();
        self.count_group(former.as_ref(), Some(&group));
        self.service_groups.insert(group.uuid, group);
        if let Some(former) = former
            && former.place() != place
        {
            self.index.groups.remove(&former.place());
        }
        if !self.index.groups.contains_key(&place) {
            self.index.groups.insert(place, ());
        }
    }

    /// Takes a service group out.
    pub fn remove_group(&mut self, uuid: Uuid) -> Option<ServiceGroup> {
        let group = self.service_groups.remove(&uuid)?;
        self.count_group(Some(&group), None);
        self.index.groups.remove(&group.place());
        Some(group)
    }

    /// Adds or replaces an instance.
    pub fn put_instance(&mut self, mut instance: Instance) {
        instance.pack();
        let (place, group, uuid) = (instance.place(), instance.service_group, instance.uuid);
        let former = self.instances.get(&uuid).cloned();
        self.count_instance(former.as_ref(), Some(&instance));
        self.instances.insert(uuid, instance);
        if let Some(former) = former {
            if former.place() != place {
                self.index.instances.remove(&former.place());
            }
            if former.service_group != group {
                self.leave(&former);
            }
        }
        if !self.index.instances.contains_key(&place) {
            self.index.instances.insert(place, ());
        }
        if let Some(group) = group
            && !self.index.members.contains_key(&(group, uuid))
        {
            self.index.members.insert((group, uuid), ());
        }
    }

    /// Takes an instance out.
    pub fn remove_instance(&mut self, uuid: Uuid) -> Option<Instance> {
        let instance = self.instances.remove(&uuid)?;
        self.count_instance(Some(&instance), None);
        self.index.instances.remove(&instance.place());
        self.leave(&instance);
        Some(instance)
    }

    /// Adds or replaces a certificate.
    pub fn put_certificate(&mut self, certificate: Certificate) {
        self.remove_certificate(certificate.uuid);
        for place in certificate.places() {
            self.index.certificates.insert(place, ());
        }
        self.certificates.insert(certificate.uuid, certificate);
    }

    /// Takes a certificate out.
    pub fn remove_certificate(&mut self, uuid: Uuid) -> Option<Certificate> {
        let certificate = self.certificates.remove(&uuid)?;
        for place in certificate.places() {
            self.index.certificates.remove(&place);
        }
        Some(certificate)
    }

    /// The account's certificates that have exactly this name, the best one last.
    pub(super) fn certificates_named(
        &self,
        account: Uuid,
        name: &str,
    ) -> impl DoubleEndedIterator<Item = &Certificate> {
        let (first, last) = (PrimitiveDateTime::MIN, PrimitiveDateTime::MAX);
        let (first, last) = (first.assume_utc(), last.assume_utc());
        let from = (account, name.to_owned(), first, first, Uuid::nil());
        let to = (account, name.to_owned(), last, last, Uuid::max());
        let named = self.index.certificates.range(&from, &to);
        named.filter_map(|((.., uuid), ())| self.certificates.get(uuid))
    }

    fn leave(&mut self, instance: &Instance) {
        if let Some(group) = instance.service_group {
            self.index.members.remove(&(group, instance.uuid));
        }
    }

    /// The instances of a service group.
    pub fn members(&self, group: Uuid) -> impl Iterator<Item = &Instance> {
        let from = (group, Uuid::nil());
        let members = self.index.members.range(&from, &(group, Uuid::max()));
        members.filter_map(|((_, instance), ())| self.instances.get(instance))
    }

    /// The caller's service groups, by time of creation.
    pub fn service_groups_of(
        &self,
        caller: Caller,
    ) -> impl DoubleEndedIterator<Item = &ServiceGroup> {
        self.groups_between(all_of(caller))
    }

    /// The caller's instances, by time of creation.
    pub fn instances_of(&self, caller: Caller) -> impl DoubleEndedIterator<Item = &Instance> {
        self.instances_between(all_of(caller))
    }

    /// An account's service groups by time of creation, from one place to another.
    pub fn groups_between(
        &self,
        [from, to]: [Place; 2],
    ) -> impl DoubleEndedIterator<Item = &ServiceGroup> {
        let places = self.index.groups.range(&from, &to);
        places.filter_map(|((_, _, uuid), ())| self.service_groups.get(uuid))
    }

    /// An account's instances by time of creation, from one place to another.
    pub fn instances_between(
        &self,
        [from, to]: [Place; 2],
    ) -> impl DoubleEndedIterator<Item = &Instance> {
        let places = self.index.instances.range(&from, &to);
        places.filter_map(|((_, _, uuid), ())| self.instances.get(uuid))
    }
}
