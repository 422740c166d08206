//! `/v1/x/accounts` and `/v1/x/tokens`, for operators, and `/v1/users/quotas`.

use axum::extract::State;
use lbagent_api::access::{
    Account, AccountSpec, AccountsData, NewTokenData, NoLimits, Quotas, QuotasData, QuotasSpec,
    QuotasStats, Token, TokenSpec, TokensData, UserQuotas,
};
use lbagent_api::request::{parse_body, validate_name};
use lbagent_api::{ContractError, Envelope, ErrorCode, Item, ItemError, Selector};
use time::OffsetDateTime;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Shared;
use super::auth::{As, Operator};
use super::openapi::{Refusal, bodies};
use super::request::{Body, Named, Word};
use super::respond::{Answer, answer, change};
use crate::desired::{self, AccountError, Caller, DesiredState, NewToken, TokenError};

/// The paths of accounts, tokens and quotas.
pub(super) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(list_accounts, create_account))
        .routes(routes!(get_account, delete_account))
        .routes(routes!(put_quotas))
        .routes(routes!(list_tokens, create_token))
        .routes(routes!(revoke_token))
        .routes(routes!(quotas))
        .routes(routes!(quotas_by_uuid))
}

/// List accounts
#[utoipa::path(
    get, path = "/v1/x/accounts", operation_id = "list_accounts",
    responses((status = 200, description = "All accounts.", body = bodies::Accounts))
)]
pub(super) async fn list_accounts(State(context): State<Shared>, _: Operator) -> Answer {
    let state = context.desired.current();
    let accounts = state.access.all_accounts();
    let accounts = accounts.map(|account| shown(&state, account)).collect();
    answer(Envelope::success(AccountsData { accounts }))
}

/// Show an account
#[utoipa::path(
    get, path = "/v1/x/accounts/{uuid}", operation_id = "get_account",
    responses((status = 200, description = "The account.", body = bodies::Accounts))
)]
pub(super) async fn get_account(
    State(context): State<Shared>,
    _: Operator,
    Word(selector): Word,
) -> Answer {
    let account = context.desired.current().account(&selector);
    one(&context, account.ok_or(AccountError::NotFound(selector)))
}

/// Create an account
#[utoipa::path(
    post, path = "/v1/x/accounts", operation_id = "create_account", request_body = AccountSpec,
    responses(
        (status = 200, description = "The account.", body = bodies::Accounts),
        (status = 409, description = "What else there is does not allow this.", body = Refusal)
    )
)]
pub(super) async fn create_account(
    State(context): State<Shared>,
    _: Operator,
    body: Body,
) -> Answer {
    let AccountSpec { name, quotas } = parse_body(&body.0)?;
    validate_name(&name)?;
    let quotas = quotas.unwrap_or(Quotas::CREATED);
    let now = OffsetDateTime::now_utc();
    let (written, _) = change(&context, move |desired| {
        desired.create_account(&name, quotas, now)
    })
    .await?;
    one(&context, written.outcome)
}

/// Set the quotas of an account
#[utoipa::path(
    put, path = "/v1/x/accounts/{uuid}/quotas", operation_id = "put_account_quotas",
    request_body = QuotasSpec,
    responses((status = 200, description = "The account.", body = bodies::Accounts))
)]
pub(super) async fn put_quotas(
    State(context): State<Shared>,
    _: Operator,
    Word(selector): Word,
    body: Body,
) -> Answer {
    let QuotasSpec { quotas } = parse_body(&body.0)?;
    let (written, _) = change(&context, move |desired| {
        desired.set_quotas(&selector, quotas)
    })
    .await?;
    one(&context, written.outcome)
}

/// Delete an account
#[utoipa::path(
    delete, path = "/v1/x/accounts/{uuid}", operation_id = "delete_account",
    responses(
        (status = 200, description = "What it was.", body = bodies::Accounts),
        (status = 409, description = "What else there is does not allow this.", body = Refusal)
    )
)]
pub(super) async fn delete_account(
    State(context): State<Shared>,
    _: Operator,
    Word(selector): Word,
    // Read, though it can say nothing, so that whoever sends one gets to the answer.
    _: Body,
) -> Answer {
    let (written, _) = change(&context, move |desired| desired.delete_account(&selector)).await?;
    one(&context, written.outcome)
}

fn one(context: &Shared, account: Result<desired::Account, AccountError>) -> Answer {
    let accounts = vec![shown(&context.desired.current(), account?)];
    answer(Envelope::success(AccountsData { accounts }))
}

fn shown(state: &DesiredState, account: desired::Account) -> Account {
    let desired::Account {
        uuid,
        name,
        created_at,
        quotas,
    } = account;
    Account {
        uuid,
        name,
        created_at: (created_at != OffsetDateTime::UNIX_EPOCH).then_some(created_at),
        quotas,
        used: state.usage(uuid),
    }
}

/// List tokens
///
/// Without the secrets, which nobody has but their holders.
#[utoipa::path(
    get, path = "/v1/x/tokens", operation_id = "list_tokens",
    responses((status = 200, description = "All tokens.", body = bodies::Tokens))
)]
pub(super) async fn list_tokens(State(context): State<Shared>, _: Operator) -> Answer {
    let state = context.desired.current();
    let mut tokens: Vec<Token> = state
        .access
        .tokens
        .values()
        .map(|token| token_shown(&state, token))
        .collect();
    tokens.sort_by_key(|token| (token.created_at, token.uuid));
    answer(Envelope::success(TokensData { tokens }))
}

/// Create a token
#[utoipa::path(
    post, path = "/v1/x/tokens", operation_id = "create_token", request_body = TokenSpec,
    responses(
        (
            status = 200, description = "The token, and the secret that is shown this once.",
            body = bodies::NewToken
        )
    )
)]
pub(super) async fn create_token(State(context): State<Shared>, _: Operator, body: Body) -> Answer {
    let new = NewToken::try_from(parse_body::<TokenSpec>(&body.0)?)?;
    let now = OffsetDateTime::now_utc();
    let (written, _) = change(&context, move |desired| desired.create_token(&new, now)).await?;
    let (token, secret) = written.outcome?;
    let token = token_shown(&context.desired.current(), &token);
    answer(Envelope::success(NewTokenData { token, secret }))
}

/// Revoke a token
#[utoipa::path(
    delete, path = "/v1/x/tokens/{uuid}", operation_id = "revoke_token",
    responses((status = 200, description = "What it was.", body = bodies::Tokens))
)]
pub(super) async fn revoke_token(
    State(context): State<Shared>,
    _: Operator,
    Named(selector): Named,
    _: Body,
) -> Answer {
    let Selector::Uuid(uuid) = selector else {
        unreachable!("a path names tokens by UUID")
    };
    let (written, _) = change(&context, move |desired| desired.revoke_token(uuid)).await?;
    let tokens = vec![token_shown(&context.desired.current(), &written.outcome?)];
    answer(Envelope::success(TokensData { tokens }))
}

fn token_shown(state: &DesiredState, token: &desired::Token) -> Token {
    let desired::Token {
        uuid,
        account,
        role,
        label,
        // Enough to try guesses with, so it stays here.
        digest: _,
        created_at,
        expires_at,
    } = token;
    let name = state.access.account(*account).map(|account| account.name);
    Token {
        uuid: *uuid,
        label: label.clone(),
        account: *account,
        account_name: name.unwrap_or_default(),
        role: *role,
        created_at: *created_at,
        expires_at: *expires_at,
    }
}

/// Show the quotas of the caller's account
#[utoipa::path(
    get, path = "/v1/users/quotas", operation_id = "get_quotas",
    responses((status = 200, description = "One item.", body = bodies::UserQuotas))
)]
pub(super) async fn quotas(State(context): State<Shared>, As(caller): As) -> Answer {
    let item = user_quotas(&context.desired.current(), caller);
    quotas_of(item.ok_or_else(|| no_user(&Selector::Uuid(caller.account))))
}

/// Show the quotas of an account by UUID
///
/// Which can be no other than the caller's.
#[utoipa::path(
    get, path = "/v1/users/{uuid}/quotas", operation_id = "get_user_quotas",
    responses((status = 200, description = "One item.", body = bodies::UserQuotas))
)]
pub(super) async fn quotas_by_uuid(
    State(context): State<Shared>,
    As(caller): As,
    Named(selector): Named,
) -> Answer {
    let item = if selector == Selector::Uuid(caller.account) {
        user_quotas(&context.desired.current(), caller)
    } else {
        None
    };
    quotas_of(item.ok_or_else(|| no_user(&selector)))
}

fn no_user(selector: &Selector) -> ItemError {
    ItemError::new(
        selector,
        ErrorCode::NotFound,
        format!("No user with {selector}"),
    )
}

fn quotas_of(item: Result<UserQuotas, ItemError>) -> Answer {
    answer(Envelope::of_items(vec![Item::from(item)], |quotas| {
        QuotasData { quotas }
    }))
}

fn user_quotas(state: &DesiredState, caller: Caller) -> Option<UserQuotas> {
    let quotas = state.access.account(caller.account)?.quotas;
    let used = state.usage(caller.account);
    Some(UserQuotas {
        uuid: caller.account,
        used: QuotasStats {
            instances: Some(used.instances),
            live_instances: Some(used.live_instances),
            service_groups: Some(used.service_groups),
            services: Some(used.services),
        },
        hard: QuotasStats {
            instances: quotas.instances,
            live_instances: quotas.instances,
            service_groups: quotas.service_groups,
            services: quotas.services,
        },
        limits: NoLimits {},
    })
}

impl From<AccountError> for super::error::ApiError {
    fn from(error: AccountError) -> Self {
        match error {
            AccountError::NotFound(_) => Self::NoSuchObject(error.to_string()),
            AccountError::NameTaken { .. }
            | AccountError::Default
            | AccountError::NotEmpty { .. } => Self::Clash(error.to_string()),
        }
    }
}

impl From<TokenError> for super::error::ApiError {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::NoAccount(_) | TokenError::NotFound(_) => {
                Self::NoSuchObject(error.to_string())
            }
            TokenError::OperatorOfAccount => {
                Self::Contract(ContractError::invalid(error.to_string()))
            }
            TokenError::NoRandomBits(text) => {
                tracing::error!("no token was made: {text}");
                Self::Internal
            }
        }
    }
}
