/*
 * The table of who may do what over the admin API: every endpoint, for every kind of principal. A cell is the HTTP
 * status. The type of a row keeps a cell from being forgotten, and `permissions.test.ts` keeps an endpoint from it.
 */

export const principals = [
  'anonymous',
  'unknown', // a token that does not exist
  'stranger', // a user without any grant
  'noCreate', // the same, who may not create repositories
  'reader', // grants on team/app
  'writer',
  'owner',
  'ownerWrite', // the owner with lesser tokens
  'ownerRead',
  'ownerOther', // ... limited to other/*
  'admin',
  'adminWrite', // the server administrator with lesser tokens
  'adminTeam', // ... limited to team/*
] as const;
export type PrincipalName = (typeof principals)[number];

export interface Row {
  readonly desc: string;
  readonly action: string;
  readonly request: (place: Place) => readonly [method: string, path: string, body?: object];
  readonly expected: readonly [
    ...[number, number, number, number, number, number, number],
    ...[number, number, number, number, number, number],
  ];
}

/** What a request may be about. `self` is the principal's own user name. */
export interface Place {
  readonly self: string;
  readonly ownKey: string;
  readonly victimKey: string;
  /** Of team/app. */
  readonly deployKey: string;
  readonly ownSigningKey: string;
  readonly victimSigningKey: string;
  readonly authority: string;
  readonly revocation: string;
  readonly tokenInUse: string;
  readonly otherToken: string;
  readonly victimToken: string;
  /** Of team/app, and of the server; each with a delivery that waits. */
  readonly webhook: string;
  readonly delivery: string;
  readonly serverWebhook: string;
  readonly serverDelivery: string;
}

/** Tokens of an issuer that are believed. */
export const trust = {
  issuer: 'https://issuer.example.org',
  audience: 'quorate',
  claims: { repository: 'acme/*' },
  repositories: 'team/*',
  level: 'read',
} as const;
