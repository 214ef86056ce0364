-- Apply: merchants' applications for an account, or for more of one. One database for all merchants.

create table applications (
    id              uuid primary key,
    merchant_id     bigint not null,
    status          text not null check (status in ('draft', 'submitted', 'in_review', 'approved', 'rejected')),
    legal_name      text not null,
    contact_name    text,
    contact_email   text,
    country         text not null,
    expected_volume numeric(18,2),
    credit_score    double precision,
    is_renewal      boolean not null default false,
    answers         jsonb,
    comment         text,
    request_id      text,
    created_at      timestamptz not null,
    submitted_at    timestamptz,
    reviewed_at     timestamptz,
    approved_at     timestamptz,
    rejected_at     timestamptz,
    updated_at      timestamptz
);
create index applications_merchant on applications (merchant_id, id);
