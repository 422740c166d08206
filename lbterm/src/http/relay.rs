//! An instance's answer on its way to the client.

use std::error::Error;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::Bytes;
use http::StatusCode;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::access::Record;
use super::body::Upload;
use super::service::InFlight;
use crate::balance::Lease;
use crate::metrics::GroupCounter;
use crate::upstream::{Pool, Upstream};

/// How an answer broke off.
pub type Broken = Box<dyn Error + Send + Sync>;

/// An instance's answer on its way to the client. The instance counts as busy until the last byte
/// was passed on.
#[derive(Debug)]
pub struct Relay {
    /// What comes; none if it is `source` that brings it.
    incoming: Option<Incoming>,
    /// Where it comes from; none when it has a task of its own, or all has come.
    source: Option<Upstream>,
    pool: Rc<Pool>,
    /// How it broke off.
    broken: Option<Broken>,
    ending: Ending,
}

/// What is left to do when an exchange ends.
#[derive(Debug)]
pub struct Ending {
    /// What the access log will say.
    pub record: Option<Box<Record>>,
    /// Bytes of the answer's body so far.
    pub bytes: u64,
    /// The request's body.
    pub upload: Option<Rc<Upload>>,
    lease: Lease,
    /// It was noted how the instance did.
    is_over: bool,
    _in_flight: InFlight,
}

impl Ending {
    /// An exchange with an instance begins.
    pub fn new(lease: Lease, record: Option<Box<Record>>, in_flight: InFlight) -> Self {
        Self {
            record,
            bytes: 0,
            upload: None,
            lease,
            is_over: false,
            _in_flight: in_flight,
        }
    }

    /// The instance has begun to answer.
    pub fn answer(&mut self, status: StatusCode) {
        self.lease.group().counters.count(match status.as_u16() {
            ..200 => GroupCounter::Responses1xx,
            200..300 => GroupCounter::Responses2xx,
            300..400 => GroupCounter::Responses3xx,
            400..500 => GroupCounter::Responses4xx,
            500.. => GroupCounter::Responses5xx,
        });
        if let Some(record) = &mut self.record {
            record.answered_by(&self.lease.instance().name, status.as_u16());
        }
    }

    /// The instance has answered to the end.
    pub fn succeed(&mut self) {
        self.is_over = true;
        self.lease.succeeded();
    }

    /// The instance has not answered as it should.
    pub fn fail(&mut self) {
        self.is_over = true;
        self.lease.failed(Instant::now());
        if let Some(record) = &mut self.record {
            record.is_broken = true;
        }
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        let counters = &self.lease.group().counters;
        counters.add(GroupCounter::BytesOut, self.bytes);
        if let Some(upload) = &self.upload {
            counters.add(GroupCounter::BytesIn, upload.bytes());
        }
        if let Some(mut record) = self.record.take() {
            record.is_broken |= !self.is_over;
            record.finish(self.bytes);
        }
    }
}

impl Relay {
    /// An answer whose head has come from `source`; from something that has a task of its own, if
    /// none is given.
    pub fn new(
        incoming: Option<Incoming>,
        source: Option<Upstream>,
        pool: Rc<Pool>,
        ending: Ending,
    ) -> Self {
        Self {
            incoming,
            source,
            pool,
            broken: None,
            ending,
        }
    }

    /// There is nothing but the head.
    pub fn finish_empty(mut self, context: &mut Context<'_>) {
        self.finish(context);
    }

    /// The next part of the body.
    pub fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        if let Some(error) = self.broken.take() {
            return Poll::Ready(Some(Err(error)));
        }
        let frame = self.poll_incoming(context);
        match &frame {
            Poll::Ready(Some(Err(_))) => return self.break_off(frame, context),
            Poll::Ready(Some(Ok(part))) => {
                self.ending.bytes += part.data_ref().map_or(0, |data| data.len() as u64);
                if self.is_end_stream() {
                    self.finish(context);
                }
            }
            Poll::Ready(None) => self.finish(context),
            Poll::Pending => {}
        }
        frame
    }

    /// The instance has broken off. hyper closes as soon as it knows, with what it has not written
    /// yet: so it knows a moment later.
    fn break_off(
        &mut self,
        frame: Poll<Option<Result<Frame<Bytes>, Broken>>>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        self.source = None;
        self.ending.fail();
        if let Poll::Ready(Some(Err(error))) = frame {
            self.broken = Some(error);
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }

    fn poll_incoming(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let Some(incoming) = &mut self.incoming else {
            return match &mut self.source {
                Some(Upstream::Bare(source)) => source.poll_frame(context).map_err(Broken::from),
                _ => Poll::Ready(None),
            };
        };
        let Some(Upstream::Http1(source)) = &mut self.source else {
            return Pin::new(incoming).poll_frame(context).map_err(Broken::from);
        };
        // Only driving the connection brings more, so nobody has to be woken for it. Asking for a
        // part before that tells hyper that it is wanted.
        let mut silent = Context::from_waker(Waker::noop());
        let frame = Pin::new(&mut *incoming).poll_frame(&mut silent);
        if frame.is_ready() {
            return frame.map_err(Broken::from);
        }
        if source.drive(context).is_ready() {
            // It is over; what it had read before is still there.
            self.source = None;
        }
        Pin::new(incoming)
            .poll_frame(&mut silent)
            .map_err(Broken::from)
    }

    /// Whether nothing more comes.
    pub fn is_end_stream(&self) -> bool {
        match (&self.incoming, &self.source) {
            (Some(incoming), _) => incoming.is_end_stream(),
            (None, Some(Upstream::Bare(source))) => source.is_end_stream(),
            (None, _) => true,
        }
    }

    /// How much more comes.
    pub fn size_hint(&self) -> SizeHint {
        match (&self.incoming, &self.source) {
            (Some(incoming), _) => incoming.size_hint(),
            (None, Some(Upstream::Bare(source))) => source.size_hint(),
            (None, _) => SizeHint::with_exact(0),
        }
    }

    fn finish(&mut self, context: &mut Context<'_>) {
        if self.ending.is_over {
            return;
        }
        self.ending.succeed();
        match self.source.take() {
            Some(Upstream::Bare(source)) => self.pool.give_back_bare(source, context),
            Some(Upstream::Http1(source)) => self.pool.give_back(source, context),
            Some(Upstream::H2c(_)) | None => {}
        }
    }
}
