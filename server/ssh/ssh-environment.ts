import type { Clock, Logger, Meter, Random } from '../../backends/contract/environment.js';
import type { Accounts } from '../auth/accounts.js';
import type { CertificateAuthorities } from '../auth/certificate-authorities.js';
import type { GitService } from '../core/git-request.js';
import type { AuditLog } from '../observe/audit.js';
import type { SshLimits } from './ssh-limits.js';

/** What the parts of the SSH listener are handed. */
export interface SshEnvironment {
  readonly service: GitService;
  readonly accounts: Accounts;
  readonly authorities: Pick<CertificateAuthorities, 'judge'>;
  readonly audit: AuditLog;
  readonly logger: Logger;
  readonly meter: Meter;
  readonly clock: Clock;
  readonly random: Random;
  readonly limits: SshLimits;
  /** Everybody is trusted, with any key or none. For loopback addresses only; the configuration sees to that. */
  readonly noAuth: boolean;
}
