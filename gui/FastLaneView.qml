// The live wall: 1 to 16 tiles in one scene. Text and frames lie beside the pictures, not over them, so that a new
// picture repaints itself and nothing else. Colours are `tokens`, the model is `wall`; both are set by FastLaneTab.
import QtQuick
import Runlane 1.0

Item {
    id: root

    readonly property int gap: 10
    readonly property real cellWidth: (width - gap * (wall.columns - 1)) / wall.columns
    readonly property real cellHeight: (height - gap * (wall.rows - 1)) / wall.rows

    focus: true
    Accessible.role: Accessible.Grouping
    Accessible.name: "Live wall"

    Keys.onPressed: event => {
        event.accepted = true
        switch (event.key) {
        case Qt.Key_Left: wall.move(-1, 0); break
        case Qt.Key_Right: wall.move(1, 0); break
        case Qt.Key_Up: wall.move(0, -1); break
        case Qt.Key_Down: wall.move(0, 1); break
        case Qt.Key_Return:
        case Qt.Key_Enter: wall.toggle(); break
        case Qt.Key_Escape: wall.promote(-1); break
        case Qt.Key_Space: wall.pause(); break
        case Qt.Key_S: wall.snap(); break
        default: event.accepted = false
        }
    }

    component Figure: Column {
        property alias label: name.text
        property alias value: figure.text
        property alias color: figure.color
        property bool labelled: true
        spacing: 1

        Text {
            id: name
            visible: parent.labelled
            color: tokens.muted
            font.pixelSize: 11
        }
        Text {
            id: figure
            color: tokens.text
            font.pixelSize: 15
            font.bold: true
            font.features: { "tnum": 1 }
            textFormat: Text.PlainText
        }
    }

    component Tile: Rectangle {
        id: tile

        required property int index
        required property QtObject modelData
        readonly property QtObject lane: modelData
        readonly property bool isCurrent: wall.current === index
        readonly property bool isPromoted: wall.promoted === index
        readonly property int cell: index - wall.first
        readonly property bool isTall: height >= 150
        readonly property int inset: 10

        visible: wall.promoted < 0 ? cell >= 0 && cell < wall.columns * wall.rows : isPromoted
        x: isPromoted ? 0 : Math.round(cell % wall.columns * (root.cellWidth + root.gap))
        y: isPromoted ? 0 : Math.round(Math.floor(cell / wall.columns) * (root.cellHeight + root.gap))
        width: Math.floor(isPromoted ? root.width : root.cellWidth)
        height: Math.floor(isPromoted ? root.height : root.cellHeight)
        radius: 10
        color: tokens.card
        border.color: isCurrent ? tokens.accent : tokens.border
        border.width: isCurrent ? 2 : 1

        Accessible.role: Accessible.Graphic
        Accessible.name: lane.title + (lane.agent.length ? " agent " + lane.agent : "") + ", " + lane.state
        Accessible.description: lane.banner.length ? lane.banner : "last reward " + lane.reward + ", rolling return "
                                                                   + lane.rolling + ", " + lane.rate + " steps a second"

        Item {
            id: header
            x: tile.inset + 2
            width: tile.width - 2 * x
            height: tile.height >= 190 ? 34 : 28

            Rectangle {
                id: dot
                anchors.verticalCenter: parent.verticalCenter
                width: 8
                height: 8
                radius: 4
                color: tokens[tile.lane.tone]
            }
            Text {
                id: title
                anchors.verticalCenter: parent.verticalCenter
                x: 16
                width: Math.min(implicitWidth, badge.x - x - 8 - (agent.visible ? agent.width + 6 : 0))
                color: tokens.text
                font.pixelSize: 13
                font.bold: true
                elide: Text.ElideRight
                textFormat: Text.PlainText
                text: tile.lane.title
            }
            Rectangle {
                id: agent
                objectName: "agent"
                anchors.verticalCenter: parent.verticalCenter
                x: title.x + title.width + 6
                visible: tile.lane.agent.length > 0
                width: Math.min(agentName.implicitWidth + 12, parent.width / 2)
                height: 18
                radius: 5
                color: tokens.raised
                border.color: tokens.strong_border

                Text {
                    id: agentName
                    anchors.centerIn: parent
                    width: Math.min(implicitWidth, parent.width - 8)
                    color: tokens.text
                    font.pixelSize: 11
                    font.bold: true
                    elide: Text.ElideMiddle
                    textFormat: Text.PlainText
                    text: tile.lane.agent
                }
            }
            Text {
                anchors.baseline: title.baseline
                x: agent.visible ? agent.x + agent.width + 8 : title.x + title.width + 8
                width: badge.x - x - 8
                visible: width > 40
                color: tokens.muted
                font.pixelSize: 12
                elide: Text.ElideRight
                textFormat: Text.PlainText
                text: tile.lane.subtitle
            }
            Rectangle {
                id: badge
                readonly property color tone: tokens[tile.lane.ageTone]
                anchors.verticalCenter: parent.verticalCenter
                x: parent.width - width
                visible: tile.lane.age.length > 0
                width: visible ? Math.max(48, age.implicitWidth + 16) : 0
                height: 20
                radius: 10
                color: Qt.alpha(tone, 0.18)

                Text {
                    id: age
                    anchors.centerIn: parent
                    color: badge.tone
                    font.pixelSize: 11
                    font.bold: true
                    font.features: { "tnum": 1 }
                    text: tile.lane.age
                }
            }
        }

        Rectangle {
            id: picture
            x: 2
            y: header.height
            width: tile.width - 4
            height: tile.height - header.height - hud.height
            color: tokens.picture

            FastLaneItem {
                objectName: "picture"
                anchors.fill: parent
                lane: tile.lane
            }
            Rectangle {
                objectName: "banner"
                anchors.centerIn: parent
                visible: tile.lane.banner.length > 0
                readonly property bool isWarning: tile.lane.tone === "warn"
                width: Math.min(parent.width - 12, banner.implicitWidth + 32)
                height: banner.implicitHeight + 18
                radius: 8
                color: Qt.alpha(tokens.overlay, 0.88)
                border.color: isWarning ? tokens.overlayWarn : tokens.overlayMuted

                Text {
                    id: banner
                    anchors.centerIn: parent
                    width: Math.min(implicitWidth, parent.width - 16)
                    horizontalAlignment: Text.AlignHCenter
                    wrapMode: Text.Wrap
                    color: parent.isWarning ? tokens.overlayWarn : tokens.overlayText
                    font.pixelSize: 13
                    font.bold: true
                    text: tile.lane.banner
                }
            }
            Rectangle {
                x: parent.width - width - 10
                y: 10
                visible: tile.lane.state === "paused"
                width: 32
                height: 28
                radius: 8
                color: Qt.alpha(tokens.overlay, 0.88)
                border.color: tokens.overlayMuted
                Accessible.name: "Paused"

                Rectangle { x: 10; y: 8; width: 4; height: 12; color: tokens.overlayText }
                Rectangle { x: 18; y: 8; width: 4; height: 12; color: tokens.overlayText }
            }
        }

        Item {
            id: hud
            y: tile.height - height
            x: tile.inset + 2
            width: tile.width - 2 * x
            readonly property var starts: width >= 316 ? [0, 0.255, 0.555, 0.835] : width >= 230 ? [0, 0.32, 0.68] : [0, 0.5]
            height: tile.height >= 190 ? 50 : tile.isTall ? 42 : 28

            Repeater {
                model: [["last_reward", "reward"], ["rolling_return", "rolling"], ["step_rate_hz", "rate"],
                        ["episode", "episode"]]

                Figure {
                    required property int index
                    required property var modelData
                    visible: index < hud.starts.length
                    x: visible ? Math.round(hud.starts[index] * hud.width) : 0
                    anchors.verticalCenter: parent.verticalCenter
                    anchors.verticalCenterOffset: -1
                    labelled: tile.isTall
                    label: modelData[0]
                    value: tile.lane[modelData[1]]
                    color: index === 0 ? tokens[tile.lane.rewardTone] : tokens.text
                }
            }
        }

        HoverHandler {
            onHoveredChanged: wall.hover(hovered ? tile.index : -1)
        }
        TapHandler {
            onTapped: { root.forceActiveFocus(); wall.select(tile.index) }
            onDoubleTapped: wall.toggle()
        }
    }

    Repeater {
        model: wall.qmlTiles
        Tile {}
    }

    Column {
        anchors.centerIn: parent
        visible: wall.qmlTiles.length === 0
        spacing: 8

        Text {
            anchors.horizontalCenter: parent.horizontalCenter
            color: tokens.text
            font.pixelSize: 17
            font.bold: true
            text: "No agent is running"
        }
        Text {
            anchors.horizontalCenter: parent.horizontalCenter
            color: tokens.muted
            font.pixelSize: 13
            text: "start one with:"
        }
        Rectangle {
            width: command.implicitWidth + 28
            height: command.implicitHeight + 18
            radius: 8
            color: tokens.raised
            border.color: tokens.border

            Text {
                id: command
                anchors.centerIn: parent
                color: tokens.text
                font.pixelSize: 13
                font.family: "monospace"
                text: "runlane run -- python train.py"
            }
        }
    }
}
