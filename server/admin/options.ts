import type { Backend } from '../../backends/contract/backend.js';
import type { ClusterRecovery } from '../../backends/contract/recovery.js';
import type { Clock, Logger, Meter, Random } from '../../backends/contract/environment.js';
import type { AccessDirectory } from '../auth/access-directory.js';
import type { HookStore } from '../../hooks/custom/hook-store.js';
import type { Webhooks } from '../../hooks/webhooks/webhooks.js';
import type { Quotas } from '../../hooks/quota/quotas.js';
import type { RuleStore } from '../../hooks/rules/rule-store.js';
import type { Accounts } from '../auth/accounts.js';
import type { LocalAdmin } from '../auth/local-admin.js';
import type { OpenIdIssuers } from '../auth/openid-issuers.js';
import type { CertificateAuthorities } from '../auth/certificate-authorities.js';
import type { Authorizer } from '../auth/authorizer.js';
import type { OpenpgpKeys } from '../auth/openpgp-keys.js';
import type { HostCertificates } from '../ssh/host-certificates.js';
import type { ClientRates } from '../core/client-rates.js';
import type { AuditTail } from '../observe/audit-tail.js';
import type { AuditTrail } from '../observe/audit-trail.js';
import type { AuditLog } from '../observe/audit.js';

import type { CoordinatorView } from './coordinator-state.js';
import type { HiddenPositions } from './hidden-positions.js';
import type { RequestRecords } from './request-records.js';

/** What the program knows of itself and the backend does not. */
export interface ServerInfo {
  readonly version: string;
  readonly startedAtMs: number;
  /** Where it listens: `http://127.0.0.1:8080`, `ssh://127.0.0.1:2222`; undefined when it does not. */
  readonly httpUrl: string | undefined;
  readonly sshUrl: string | undefined;
  readonly opsUrl: string | undefined;
  /** More for `quorate status`, shown as it is: what SSH's cryptography runs on, ... No secrets. */
  readonly notes: Readonly<Record<string, string>>;
}

/** What the admin API works with. */
export interface AdminApiOptions {
  readonly backend: Backend;
  readonly recovery: ClusterRecovery;
  readonly coordinatorView: CoordinatorView;
  readonly accounts: Accounts;
  /** Signs in while the coordinator does not say who somebody is. */
  readonly localAdmin: Pick<LocalAdmin, 'principalOf'>;
  readonly directory: AccessDirectory;
  readonly issuers: OpenIdIssuers;
  readonly authorities: CertificateAuthorities;
  readonly authorizer: Authorizer;
  readonly rules: RuleStore;
  readonly hooks: HookStore;
  readonly quotas: Quotas;
  readonly webhooks: Webhooks;
  /** `hooks.enabled` */
  readonly hooksEnabled: boolean;
  readonly hostCertificates: Pick<HostCertificates, 'report'>;
  readonly openpgpKeys: OpenpgpKeys;
  readonly audit: AuditLog;
  readonly auditTrail: AuditTrail;
  readonly auditTail: AuditTail;
  /** Aborted when the server drains: answers without an end are to end. */
  readonly draining: AbortSignal;
  readonly logger: Logger;
  readonly meter: Meter;
  readonly requestRecords: RequestRecords;
  readonly hiddenPositions: HiddenPositions;
  /** Of this API alone. */
  readonly rates: ClientRates;
  readonly clock: Clock;
  readonly random: Random;
  /** Read at each request: addresses are known only once the listeners listen. */
  readonly serverInfo: () => ServerInfo;
  /** Of the program, for the OpenAPI document. */
  readonly version: string;
  /** `--no-auth`: everybody is `trusted`, whatever credentials come along. */
  readonly noAuth: boolean;
}
