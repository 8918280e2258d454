/** What a rule was broken by: label of the metric. */
export type Demand =
  | 'push'
  | 'noForcePush'
  | 'noDeletion'
  | 'linearHistory'
  | 'signedCommits'
  | 'maxFileSize'
  | 'forbiddenPaths'
  | 'commitMessage'
  | 'not-judged';

export interface Violation {
  readonly demand: Demand;
  readonly reason: string;
}
