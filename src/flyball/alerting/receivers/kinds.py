"""Which section of a receiver is read by which file."""

from flyball.alerting.receivers import email, pagerduty, slack, telegram, webhook

#: By the section's name in a receiver.
KINDS = {
    "webhook_configs": webhook.read,
    "email_configs": email.read,
    "slack_configs": slack.read,
    "pagerduty_configs": pagerduty.read,
    "telegram_configs": telegram.read,
}

#: Kinds of Alertmanager that are not built in; a webhook reaches them through a small program of one's own.
NOT_BUILT_IN = (
    "discord_configs",
    "incidentio_configs",
    "jira_configs",
    "mattermost_configs",
    "msteams_configs",
    "msteamsv2_configs",
    "opsgenie_configs",
    "pushover_configs",
    "rocketchat_configs",
    "sns_configs",
    "victorops_configs",
    "webex_configs",
    "wechat_configs",
)
