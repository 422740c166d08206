//! Stages that the verifier checks on their own.
//!
//! The verifier follows an ordinary function again for every state that its callers may be in, and
//! the states multiply: checking takes longer than loading should, and on Linux 6.1 more
//! instructions than it allows. A function that is visible from outside of the object is checked
//! once, for all that its arguments may be, and taken for granted at its calls. That has a price,
//! which is why not everything is here: what is passed are numbers, or memory that holds no
//! pointers; a pointer is compared with null; and the memory counts as unknown afterwards.

use aya_ebpf::bindings::{__sk_buff, xdp_md};
use aya_ebpf::programs::{TcContext, XdpContext};
use lbagent_common::{Addr, BackendEntry, BackendId, VipEntry};

use crate::answer::too_big;
use crate::conntrack::{self, ChangedFlow};
use crate::forward::rewrite::Rewrite;
use crate::forward::{self, mss};
use crate::kernel::{self, Hop, Route};
use crate::outcome::Packed;
use crate::packet::Packet;
use crate::{fragments, icmp, pipeline, quic, sources, web};

/// Types whose bytes may pass between functions that know nothing of each other.
///
/// # Safety
///
/// Every bit pattern must be valid, and there must be neither padding nor pointers.
unsafe trait Plain {}

// SAFETY: words.
unsafe impl Plain for Addr {}
// SAFETY: an entry of a map: integers, padding spelled out.
unsafe impl Plain for BackendEntry {}
// SAFETY: likewise.
unsafe impl Plain for VipEntry {}
// SAFETY: integers, padding spelled out.
unsafe impl Plain for Packet {}
// SAFETY: words.
unsafe impl Plain for Hop {}
// SAFETY: words and pairs of ports.
unsafe impl Plain for Rewrite {}
// SAFETY: one long word and six short ones.
unsafe impl Plain for ChangedFlow {}

const _: () = {
    // The members' sizes.
    assert!(size_of::<Packet>() == 56, "a packet has no padding");
    assert!(size_of::<Hop>() == 28, "a hop has no padding");
    assert!(size_of::<Rewrite>() == 36, "a rewrite has no padding");
    assert!(size_of::<ChangedFlow>() == 32, "a flow has no padding");
};

/// How an argument travels.
trait Argument: Sized {
    type Raw;
    fn raw(self) -> Self::Raw;
    /// `None` for null, which the verifier wants to be asked for.
    ///
    /// # Safety
    ///
    /// A pointer that is not null must come from [`raw`](Self::raw) of a caller that is waiting.
    unsafe fn from_raw(raw: Self::Raw) -> Option<Self>;
}

impl Argument for u32 {
    type Raw = Self;

    #[inline(always)]
    fn raw(self) -> Self {
        self
    }

    #[inline(always)]
    unsafe fn from_raw(raw: Self) -> Option<Self> {
        Some(raw)
    }
}

impl<T: Plain> Argument for &T {
    type Raw = *const T;

    #[inline(always)]
    fn raw(self) -> *const T {
        self
    }

    #[inline(always)]
    unsafe fn from_raw(raw: *const T) -> Option<Self> {
        // SAFETY: the caller promises what it points to.
        unsafe { raw.as_ref() }
    }
}

impl<T: Plain> Argument for &mut T {
    type Raw = *mut T;

    #[inline(always)]
    fn raw(self) -> *mut T {
        self
    }

    #[inline(always)]
    unsafe fn from_raw(raw: *mut T) -> Option<Self> {
        // SAFETY: the caller promises what it points to, and that it waits.
        unsafe { raw.as_mut() }
    }
}

/// What such a function returns: a number.
pub trait Scalar {
    /// Of a call with a null pointer, which there is none of.
    const NONE: Self;
    /// As a number.
    fn number(self) -> u64;
    /// From the number that [`number`](Self::number) made.
    fn from_number(number: u64) -> Self;
}

impl Scalar for u32 {
    const NONE: Self = 0;

    #[inline(always)]
    fn number(self) -> u64 {
        u64::from(self)
    }

    #[inline(always)]
    fn from_number(number: u64) -> Self {
        number as Self
    }
}

/// For each stage a method of both contexts, and the two functions behind it.
macro_rules! stages {
    ($(
        $(#[doc = $doc:literal])*
        $method:ident($($name:ident: $kind:ty),*) -> $result:ty
            = $stage:path, $xdp:ident, $tc:ident;
    )*) => {
        /// Stages that both programs have.
        pub trait Stages {
            $(
                $(#[doc = $doc])*
                fn $method(&self, $($name: $kind),*) -> $result;
            )*
        }

        impl Stages for XdpContext {
            $(
                #[inline(always)]
                fn $method(&self, $($name: $kind),*) -> $result {
                    Scalar::from_number($xdp(self.ctx, $(Argument::raw($name)),*))
                }
            )*
        }

        impl Stages for TcContext {
            $(
                #[inline(always)]
                fn $method(&self, $($name: $kind),*) -> $result {
                    Scalar::from_number($tc(self.skb.skb, $(Argument::raw($name)),*))
                }
            )*
        }

        $(
            #[inline(never)]
            #[unsafe(no_mangle)]
            extern "C" fn $xdp(ctx: *mut xdp_md, $($name: <$kind as Argument>::Raw),*) -> u64 {
                $(
                    // SAFETY: called by the method above only.
                    let Some($name) = (unsafe { <$kind as Argument>::from_raw($name) }) else {
                        return <$result as Scalar>::NONE.number();
                    };
                )*
                $stage(&XdpContext::new(ctx), $($name),*).number()
            }

            #[inline(never)]
            #[unsafe(no_mangle)]
            extern "C" fn $tc(ctx: *mut __sk_buff, $($name: <$kind as Argument>::Raw),*) -> u64 {
                $(
                    // SAFETY: as above.
                    let Some($name) = (unsafe { <$kind as Argument>::from_raw($name) }) else {
                        return <$result as Scalar>::NONE.number();
                    };
                )*
                $stage(&TcContext::new(ctx), $($name),*).number()
            }
        )*
    };
}

stages! {
    /// [`kernel::route`].
    route(packet: &Packet, source: &Addr, destination: &Addr, hop: &mut Hop) -> Route
        = kernel::route, lb_route_xdp, lb_route_tc;
    /// [`forward::send_around_nat`].
    send_around_nat(
        packet: &Packet,
        vip: &VipEntry,
        backend: &BackendEntry,
        flow: &Packet
    ) -> Packed
        = forward::send_around_nat, lb_send_around_nat_xdp, lb_send_around_nat_tc;
    /// [`mss::lower`].
    lower_mss(tcp: u32, limit: u32) -> u32
        = mss::lower, lb_lower_mss_xdp, lb_lower_mss_tc;
    /// [`too_big::answer`].
    answer_too_big(packet: &Packet, mtu: u32) -> Packed
        = too_big::answer, lb_answer_too_big_xdp, lb_answer_too_big_tc;
    /// [`icmp::to_vip`].
    icmp_to_vip() -> Packed
        = icmp::to_vip, lb_icmp_to_vip_xdp, lb_icmp_to_vip_tc;
    /// [`icmp::to_client`].
    icmp_to_client() -> Packed
        = icmp::to_client, lb_icmp_to_client_xdp, lb_icmp_to_client_tc;
    /// [`pipeline::follow`].
    follow(packet: &mut Packet) -> Packed
        = pipeline::follow, lb_follow_xdp, lb_follow_tc;
    /// [`fragments::remember`].
    remember_fragment(packet: &Packet, vip: &VipEntry, id: BackendId) -> u32
        = fragments::remember, lb_remember_fragment_xdp, lb_remember_fragment_tc;
    /// [`quic::server`].
    quic_server(packet: &Packet, vip: &VipEntry) -> BackendId
        = quic::server, lb_quic_server_xdp, lb_quic_server_tc;
}

/// [`web::serve`], which only packets from the client side come to.
#[inline(always)]
pub fn serve(ctx: &XdpContext, packet: &Packet, vip: &VipEntry) -> Packed {
    Scalar::from_number(lb_serve_xdp(ctx.ctx, packet.raw(), vip.raw()))
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn lb_serve_xdp(ctx: *mut xdp_md, packet: *const Packet, vip: *const VipEntry) -> u64 {
    // SAFETY: called by the function above only.
    let (packet, vip) = unsafe { (<&Packet>::from_raw(packet), <&VipEntry>::from_raw(vip)) };
    let (Some(packet), Some(vip)) = (packet, vip) else {
        return Packed::NONE.number();
    };
    web::serve(&XdpContext::new(ctx), packet, vip).number()
}

/// The same for stages that need no packet.
macro_rules! functions {
    ($(
        $(#[doc = $doc:literal])*
        $method:ident($($name:ident: $kind:ty),*) -> $result:ty = $stage:path, $function:ident;
    )*) => {
        $(
            $(#[doc = $doc])*
            #[inline(always)]
            pub fn $method($($name: $kind),*) -> $result {
                Scalar::from_number($function($(Argument::raw($name)),*))
            }

            #[inline(never)]
            #[unsafe(no_mangle)]
            extern "C" fn $function($($name: <$kind as Argument>::Raw),*) -> u64 {
                $(
                    // SAFETY: called by the function above only.
                    let Some($name) = (unsafe { <$kind as Argument>::from_raw($name) }) else {
                        return <$result as Scalar>::NONE.number();
                    };
                )*
                $stage($($name),*).number()
            }
        )*
    };
}

functions! {
    /// [`sources::claim`].
    claim_source(
        packet: &Packet,
        vip: &VipEntry,
        id: BackendId,
        backend: &BackendEntry,
        to: &mut Rewrite
    ) -> Packed = sources::claim, lb_claim_source;
    /// [`conntrack::select_changed`].
    select_changed(flow: &ChangedFlow, is_new: u32) -> BackendId
        = conntrack::select_changed, lb_select_changed;
    /// [`conntrack::lookup_changed`].
    lookup_changed(flow: &ChangedFlow) -> BackendId
        = conntrack::lookup_changed, lb_lookup_changed;
    /// [`fragments::let_pass`].
    let_fragments_pass(packet: &Packet) -> u32
        = fragments::let_pass, lb_let_fragments_pass;
}
