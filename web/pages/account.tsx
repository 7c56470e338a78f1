/** The account page: password, sessions, app passwords, theme. Plain forms, no browser code. */
import type { ComponentChildren, JSX } from "preact";
import type { Account } from "../../apps/accounts/accounts.ts";
import type { AppPassword } from "../../apps/accounts/app_passwords.ts";
import type { Session } from "../../apps/accounts/sessions.ts";
import type { BootData } from "../ui/boot.ts";
import { Avatar } from "../ui/components/avatar.tsx";
import { Badge } from "../ui/components/badge.tsx";
import { Button } from "../ui/components/button.tsx";
import { Icon } from "../ui/components/icon.tsx";
import { ListRow } from "../ui/components/list_row.tsx";
import { Notice } from "../ui/components/notice.tsx";
import { TextField } from "../ui/components/text_field.tsx";
import { formatAgo, formatFullDate } from "../ui/format.ts";
import type { IconName } from "../ui/icons/icon_names.ts";
import type { Theme } from "../ui/theme.ts";
import { describeDevice } from "./device.ts";
import { PageShell } from "./page_shell.tsx";

export interface AccountPageProps {
  readonly user: BootData["user"];
  readonly account: Account;
  readonly sessions: readonly Session[];
  readonly currentSessionId: string | null;
  readonly appPasswords: readonly AppPassword[];
  readonly theme: Theme;
  readonly nowMs: number;
  /** What has just been done, in a sentence. */
  readonly done?: string;
  readonly error?: {
    readonly field: "current" | "new" | "label" | null;
    readonly message: string;
  };
  /** Shown this once. */
  readonly newAppPassword?: { readonly label: string; readonly password: string };
}

export function AccountPage(props: AccountPageProps): JSX.Element {
  const { user, account, nowMs, done, error } = props;
  return (
    <PageShell app="account" user={user}>
      <header class="profile">
        <Avatar name={user.username} address={user.address} size="large" />
        <div class="profile__text">
          <h1 class="page__title">{user.username}</h1>
          <p class="muted">
            {user.address} · since{" "}
            <span title={formatFullDate(account.createdMs)}>
              {formatAgo(account.createdMs, nowMs)}
            </span>
          </p>
        </div>
        {user.admin && <Badge tone="accent" icon="shield">Administrator</Badge>}
      </header>
      {done && <Notice tone="success">{done}</Notice>}
      {error?.field === null && <Notice tone="danger">{error.message}</Notice>}
      <div class="page__cards">
        <PasswordCard {...props} />
        <SessionsCard {...props} />
        <AppPasswordsCard {...props} />
        <ThemeCard theme={props.theme} />
      </div>
    </PageShell>
  );
}

function Card(
  { id, title, text, children }: {
    id: string;
    title: string;
    text: string;
    children: ComponentChildren;
  },
): JSX.Element {
  return (
    <section class="card settings" id={id} aria-labelledby={`${id}-title`}>
      <div class="settings__about">
        <h2 class="settings__title" id={`${id}-title`}>{title}</h2>
        <p class="muted">{text}</p>
      </div>
      <div class="settings__body">{children}</div>
    </section>
  );
}

function PasswordCard({ account, error, nowMs }: AccountPageProps): JSX.Element {
  return (
    <Card
      id="password"
      title="Password"
      text={`Last changed ${
        formatAgo(account.passwordChangedMs, nowMs)
      }. A change ends every other session.`}
    >
      <form class="form" method="post" action="/account/password">
        <TextField
          label="Current password"
          name="current"
          type="password"
          autocomplete="current-password"
          error={error?.field === "current" ? error.message : null}
          required
        />
        <TextField
          label="New password"
          name="new"
          type="password"
          autocomplete="new-password"
          minlength={8}
          hint="At least 8 characters."
          error={error?.field === "new" ? error.message : null}
          required
        />
        <div>
          <Button variant="primary" type="submit">Change password</Button>
        </div>
      </form>
    </Card>
  );
}

function SessionsCard({ sessions, currentSessionId, nowMs }: AccountPageProps): JSX.Element {
  return (
    <Card
      id="sessions"
      title="Sessions"
      text="Where you are logged in. End what you do not know, then change your password."
    >
      <div class="rows">
        {sessions.map((session) => (
          <SessionRow
            key={session.id}
            session={session}
            current={session.id === currentSessionId}
            nowMs={nowMs}
          />
        ))}
      </div>
      {sessions.length > 1 && (
        <form method="post" action="/account/sessions/end-others">
          <Button type="submit" icon="log-out">End all other sessions</Button>
        </form>
      )}
    </Card>
  );
}

function SessionRow(
  { session, current, nowMs }: { session: Session; current: boolean; nowMs: number },
): JSX.Element {
  const { name, kind } = describeDevice(session.device);
  const icons: Record<typeof kind, IconName> = {
    phone: "smartphone",
    computer: "laptop",
    program: "terminal",
  };
  return (
    <ListRow
      start={
        <span class="muted">
          <Icon name={icons[kind]} />
        </span>
      }
      title={name}
      detail={
        <span title={`Since ${formatFullDate(session.createdMs)}`}>
          {session.address} · last used {formatAgo(session.lastUsedMs, nowMs)}
        </span>
      }
      end={current
        ? <Badge tone="success">This one</Badge>
        : (
          <form method="post" action="/account/sessions/end">
            <input type="hidden" name="id" value={session.id} />
            <Button type="submit" small aria-label={`End the session on ${name}`}>End</Button>
          </form>
        )}
    />
  );
}

function AppPasswordsCard(props: AccountPageProps): JSX.Element {
  const { appPasswords, newAppPassword, error, nowMs } = props;
  return (
    <Card
      id="app-passwords"
      title="App passwords"
      text="For mail programs and scripts, one each. They cannot open this page, and you can revoke them one by one."
    >
      {newAppPassword && (
        <Notice tone="success">
          <p>The password for “{newAppPassword.label}”. Copy it now; it is not shown again.</p>
          <p class="secret">{newAppPassword.password}</p>
        </Notice>
      )}
      {appPasswords.length > 0 && (
        <div class="rows">
          {appPasswords.map((entry) => (
            <ListRow
              key={entry.id}
              start={
                <span class="muted">
                  <Icon name="key-round" />
                </span>
              }
              title={entry.label}
              detail={entry.lastUsedMs === null
                ? `Made ${formatAgo(entry.createdMs, nowMs)}, not used yet`
                : `Last used ${formatAgo(entry.lastUsedMs, nowMs)}`}
              end={
                <form method="post" action="/account/app-passwords/revoke">
                  <input type="hidden" name="id" value={entry.id} />
                  <Button type="submit" small aria-label={`Revoke ${entry.label}`}>Revoke</Button>
                </form>
              }
            />
          ))}
        </div>
      )}
      <form class="form form--row" method="post" action="/account/app-passwords">
        <TextField
          label="What it is for"
          name="label"
          placeholder="Thunderbird on the laptop"
          maxlength={100}
          error={error?.field === "label" ? error.message : null}
          required
        />
        <Button type="submit" icon="plus">Make one</Button>
      </form>
    </Card>
  );
}

function ThemeCard({ theme }: { theme: Theme }): JSX.Element {
  const options = [
    { value: "system", label: "As the system", icon: "monitor" },
    { value: "light", label: "Light", icon: "sun" },
    { value: "dark", label: "Dark", icon: "moon" },
  ] as const;
  return (
    <Card id="theme" title="Appearance" text="For this browser.">
      <form method="post" action="/account/theme">
        <div class="segments" role="group" aria-label="Appearance">
          {options.map((option) => (
            <button
              key={option.value}
              type="submit"
              name="theme"
              value={option.value}
              class="segments__segment"
              aria-pressed={option.value === theme ? "true" : "false"}
            >
              <Icon name={option.icon} size="small" />
              {option.label}
            </button>
          ))}
        </div>
      </form>
    </Card>
  );
}
