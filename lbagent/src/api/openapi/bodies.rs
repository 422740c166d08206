//! Names for the bodies of requests and answers: the description knows generic types by such names
//! only.

use lbagent_api::Envelope;
use lbagent_api::access::{AccountsData, NewTokenData, QuotasData, TokensData};
use lbagent_api::certificate::{Certificate, CertificateSpec, Certificates, RotationSpec};
use lbagent_api::envelope::{Instances, Reference, ServiceGroups};
use lbagent_api::health_report::HealthData;
use lbagent_api::healthz;
use lbagent_api::instance::{Instance, InstanceSpec};
use lbagent_api::lifecycle::{
    DeleteInstanceSpec, StartSpec, StateChange, StopSpec, SuspendSpec, WaitSpec, Waited,
};
use lbagent_api::membership::MembershipData;
use lbagent_api::metrics::InstanceMetrics;
use lbagent_api::patch::{self, PatchSpec};
use lbagent_api::policy::{GroupPolicy, InstancePolicy, PolicyData};
use lbagent_api::request::SelectorSpec;
use lbagent_api::schema::{Listed, OneOrMany};
use lbagent_api::service_group::{ServiceGroup, ServiceGroupSpec};
use lbagent_api::state::{ImportData, StateData};
use lbagent_api::status::{CountersData, StatusData, TableData};
use lbagent_api::terminators::{AuthorityData, TerminatorData, TerminatorsData};
use lbagent_api::trace::TraceData;

pub(in crate::api) type Selectors = OneOrMany<SelectorSpec>;

pub(in crate::api) type NewGroups = OneOrMany<ServiceGroupSpec>;
pub(in crate::api) type Patches = OneOrMany<PatchSpec>;
pub(in crate::api) type Groups = Envelope<ServiceGroups<ServiceGroup>>;
pub(in crate::api) type GroupList = Envelope<ServiceGroups<Listed<ServiceGroup>>>;
pub(in crate::api) type GroupNames = Envelope<ServiceGroups<Reference>>;
pub(in crate::api) type Patched = Envelope<ServiceGroups<patch::Patched>>;

pub(in crate::api) type NewInstances = OneOrMany<InstanceSpec>;
pub(in crate::api) type Deletions = OneOrMany<DeleteInstanceSpec>;
pub(in crate::api) type Stops = OneOrMany<StopSpec>;
pub(in crate::api) type Starts = OneOrMany<StartSpec>;
pub(in crate::api) type Suspends = OneOrMany<SuspendSpec>;
pub(in crate::api) type WaitSpecs = OneOrMany<WaitSpec>;
pub(in crate::api) type InstancesMade = Envelope<Instances<Instance>>;
pub(in crate::api) type InstanceList = Envelope<Instances<Listed<Instance>>>;
pub(in crate::api) type InstanceNames = Envelope<Instances<Reference>>;
pub(in crate::api) type StateChanges = Envelope<Instances<StateChange>>;
pub(in crate::api) type Waits = Envelope<Instances<Waited>>;
pub(in crate::api) type Metrics = Envelope<Instances<InstanceMetrics>>;

pub(in crate::api) type NewCertificates = OneOrMany<CertificateSpec>;
pub(in crate::api) type Rotations = OneOrMany<RotationSpec>;
pub(in crate::api) type CertificatesMade = Envelope<Certificates<Certificate>>;
pub(in crate::api) type CertificateList = Envelope<Certificates<Listed<Certificate>>>;
pub(in crate::api) type CertificateNames = Envelope<Certificates<Reference>>;

pub(in crate::api) type Accounts = Envelope<AccountsData>;
pub(in crate::api) type Tokens = Envelope<TokensData>;
pub(in crate::api) type NewToken = Envelope<NewTokenData>;
pub(in crate::api) type UserQuotas = Envelope<QuotasData>;

pub(in crate::api) type Membership = Envelope<MembershipData>;
pub(in crate::api) type GroupPolicyBody = PolicyData<GroupPolicy>;
pub(in crate::api) type GroupPolicyAnswer = Envelope<PolicyData<GroupPolicy>>;
pub(in crate::api) type InstancePolicyBody = PolicyData<InstancePolicy>;
pub(in crate::api) type InstancePolicyAnswer = Envelope<PolicyData<InstancePolicy>>;
pub(in crate::api) type Health = Envelope<HealthData>;
pub(in crate::api) type Status = Envelope<StatusData>;
pub(in crate::api) type Table = Envelope<TableData>;
pub(in crate::api) type Counters = Envelope<CountersData>;
pub(in crate::api) type Trace = Envelope<TraceData>;
pub(in crate::api) type State = Envelope<StateData>;
pub(in crate::api) type Import = Envelope<ImportData>;
pub(in crate::api) type NodeHealth = Envelope<healthz::NodeHealth>;
pub(in crate::api) type Terminators = Envelope<TerminatorsData>;
pub(in crate::api) type Terminator = Envelope<TerminatorData>;
pub(in crate::api) type Authority = Envelope<AuthorityData>;
